"""What holds for all tests; code blocks of the README and the documentation are among them (tests/documents.py)."""

import os

# Before torch is imported, here and in the processes that tests start: their networks are so small that a second thread
# costs more than it brings, all the more where tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests import onnxruntime themselves; unless told not to before that, it contacts a host of its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import pytest
from documents import code_blocks
from quick import one_export_table, quick_latencies
from sybil.integration.pytest import SybilItem

pytest_collect_file = code_blocks.pytest()

NORMAL = ("Be aware that when using `ckpt_path`", "The dirpath has changed", "Checkpoint directory .* exists")
"""What Lightning warns of where a checkpoint is used in another run, as some pages do on purpose."""


def pytest_collection_modifyitems(items):
    """Let pages do so, and have them run first: their blocks are the longest tests, and each page is one process's."""
    for item in items:
        if isinstance(item, SybilItem):
            for message in NORMAL:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))
    items.sort(key=lambda item: not isinstance(item, SybilItem))


@pytest.fixture(autouse=True)
def quickly():
    """Measure latencies as long as it takes to have one."""
    with quick_latencies():
        yield


@pytest.fixture(autouse=True, scope="session")
def exporting_quickly():
    """Build the exporter's table once per process."""
    with one_export_table():
        yield

"""Every code block of the README and the documentation is a test; tests/documents.py says what is done with it."""

import pytest
from documents import code_blocks
from sybil.integration.pytest import SybilItem

pytest_collect_file = code_blocks.pytest()

NORMAL = ("Be aware that when using `ckpt_path`", "The dirpath has changed", "Checkpoint directory .* exists")
"""What Lightning warns of where a checkpoint is used in another run, as some pages do on purpose."""


def pytest_collection_modifyitems(items):
    """Let pages do so."""
    for item in items:
        if isinstance(item, SybilItem):
            for message in NORMAL:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))

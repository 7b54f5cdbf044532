"""What holds for all tests."""

import os

# Before torch is imported, here and in the processes that tests start: their networks are so small that a second thread
# costs more than it brings, all the more where tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from lit_xai.export import timing


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Measure latencies as long as it takes to have one: there are hundreds of exports in here."""
    monkeypatch.setattr(timing, "SECONDS", 0.01)

"""What holds for all tests."""

import pytest

from lit_xai.export import timing


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Measure latencies as long as it takes to have one: there are hundreds of exports in here."""
    monkeypatch.setattr(timing, "SECONDS", 0.01)

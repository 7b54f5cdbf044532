import pytest
from refusals import refused

from lit_xai.functional.scheduling import resolve_epochs


@pytest.mark.parametrize(
    ("value", "max_epochs", "expected"),
    [(0, 20, 0), (5, 20, 5), (5, None, 5), (50, 20, 50), (0.1, 20, 2), (1.0, 20, 20), (0.0, 20, 0), (0.26, 10, 3)],
)
def test_integers_count_and_fractions_share(value, max_epochs, expected):
    found = resolve_epochs(value, max_epochs, "start_epoch")
    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize(
    ("value", "max_epochs"),
    [
        (-1, 20),
        (True, 20),
        ("5", 20),
        (None, 20),
        (1.5, 20),
        (float("nan"), 20),
        (float("inf"), 20),
        (-0.5, 20),
        (0.5, None),
        (0.5, -1),
    ],
)
def test_refused(value, max_epochs):
    with refused("start_epoch", str(value)):
        resolve_epochs(value, max_epochs, "start_epoch")

"""One wording for every refused argument: NAME expected WHAT, but got VALUE."""

import math

import pytest

from lit_xai.network.check import (
    check_choice,
    check_flag,
    check_integer,
    check_positive,
    check_share,
    is_number,
    refusal,
)

NOT_NUMBERS = [True, False, None, "1", [], math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_flag, [True, False], [0, 1, None, "true"]),
        (check_integer, [1, 10**9], [0, -1, 1.0, *NOT_NUMBERS]),
        (lambda name, value: check_integer(name, value, 2, 8), [2, 8], [1, 9, 2.0, *NOT_NUMBERS]),
        (lambda name, value: check_integer(name, value, 0), [0, 5], [-1, *NOT_NUMBERS]),
        (check_positive, [1, 1e-9, 3.5], [0, 0.0, -1, *NOT_NUMBERS]),
        (check_share, [0, 1, 0.5], [-0.1, 1.1, *NOT_NUMBERS]),
        (
            lambda name, value: check_choice(name, value, ["linear", "cubic"]),
            ["linear"],
            ["Linear", "cubik", 3, None, []],
        ),
    ],
    ids=["flag", "positive integer", "2 to 8", "at least 0", "positive", "share", "choice"],
)
def test_what_passes_comes_back_and_the_rest_is_refused_by_name(check, good, bad):
    for value in good:
        assert check("this_argument", value) is value
    for value in bad:
        with pytest.raises(ValueError, match=r"^this_argument expected .*, but got ") as caught:
            check("this_argument", value)
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_what_is_no_number(value):
    assert not is_number(value)


def test_hints_are_clauses_or_sentences():
    assert str(refusal("a", "b", 1)) == "a expected b, but got 1."
    assert str(refusal("a", "b", 1, ": leave it out.")) == "a expected b, but got 1: leave it out."
    assert str(refusal("a", "b", 1, "Leave it out.")) == "a expected b, but got 1. Leave it out."
    assert str(refusal("a", "b", 1, " Did you mean 'c'?")) == "a expected b, but got 1. Did you mean 'c'?"

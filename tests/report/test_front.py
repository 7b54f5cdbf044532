import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_xai.report.front import pareto_front

# Few values, that there are ties in every objective.
NUMBERS = st.one_of(st.integers(0, 3).map(float), st.sampled_from([None, math.nan, math.inf, -math.inf, -0.0]))


@st.composite
def tables(draw):
    objectives = draw(st.integers(1, 4))
    rows = draw(st.lists(st.tuples(*[NUMBERS] * objectives), max_size=12))
    return rows, draw(st.lists(st.sampled_from(["minimize", "maximize"]), min_size=objectives, max_size=objectives))


def is_known(row):
    return all(one is not None and not math.isnan(one) for one in row)


def beats(first, second, directions):
    """Return whether one is nowhere worse and somewhere better, objective by objective."""
    pairs = zip(first, second, directions, strict=True)
    gains = [(b > a) - (b < a) if way == "minimize" else (a > b) - (a < b) for a, b, way in pairs]
    return min(gains) >= 0 and max(gains) > 0


@given(tables())
def test_the_front_is_what_brute_force_finds(given):
    rows, directions = given
    known = [row for row in rows if is_known(row)]
    expected = [is_known(row) and not any(beats(other, row, directions) for other in known) for row in rows]
    assert pareto_front(rows, directions) == expected
    assert not known or any(expected)


@given(tables(), st.randoms())
def test_it_does_not_depend_on_the_order(given, random):
    rows, directions = given
    places = list(range(len(rows)))
    random.shuffle(places)
    front = pareto_front(rows, directions)
    assert pareto_front([rows[place] for place in places], directions) == [front[place] for place in places]


def test_mistakes_are_one_sentence():
    with pytest.raises(ValueError, match=r"directions expected 'minimize' or 'maximize' .*, but got 'max'"):
        pareto_front([(1.0,)], ["max"])
    with pytest.raises(ValueError, match=r"values\[1\] expected 2 numbers, one for each direction, but got \[1.0\]"):
        pareto_front([(1.0, 2.0), (1.0,)], ["minimize", "maximize"])

"""The grammar of a guard's requirements, and when they are met."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_xai.retention.requirements import Requirement, Value, read_requirements

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.sampled_from(["drop<=", ">=", "<="]), numbers, st.sampled_from(["", " ", "  "]))
def test_what_is_written_is_read(relation, bound, space):
    bound = abs(bound) if relation == "drop<=" else bound
    text = f"{space}{relation.replace('<', f'{space}<')}{space}{bound!r}{space}"
    one = Requirement.read("val_acc", text)
    assert (one.relation, one.bound) == (relation, bound)


@settings(max_examples=40)
@given(st.one_of(st.text(), st.integers(), st.none(), st.floats(), st.lists(st.text())))
def test_anything_else_is_one_sentence(text):
    try:
        one = Requirement.read("retention", text)
    except ValueError as error:
        sentence = str(error)
        assert sentence.startswith("guard['retention'] expected ")
        assert "\n" not in sentence
    else:
        assert math.isfinite(one.bound)


@given(numbers, numbers, st.floats(0, 10), st.floats(0, 10))
def test_the_worse_end_counts(value, bound, below, above):
    """Against the definition, written the other way round."""
    now, first = Value(value, value - below, value + above), Value(bound)
    assert (Requirement("a", ">=", bound).missed_by(now) == 0) == (value - below >= bound)
    assert (Requirement("a", "<=", bound).missed_by(now) == 0) == (value + above <= bound)
    assert (Requirement("a", "drop<=", 0.5).missed_by(now, first) == 0) == (value - below >= bound - 0.5)
    alone = Value(value)
    assert (Requirement("a", ">=", bound).missed_by(alone) == 0) == (value >= bound)


@pytest.mark.parametrize("relation", [">=", "<=", "drop<="])
def test_no_number_meets_nothing(relation):
    assert math.isnan(Requirement("a", relation, 0.5).missed_by(Value(math.nan), Value(0.5)))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "guard expected requirements by name, but got {}: write"),
        (["val_acc"], "guard expected requirements by name"),
        ({"val_acc": "drop<0.01"}, r"guard\['val_acc'\] expected a requirement, but got 'drop<0.01': write"),
        ({"val_acc": "drop<=-1"}, "expected a drop of 0 or more"),
        ({"val_acc": ">=1e999"}, "expected a requirement"),
        ({"val_acc": ">=nan"}, "expected a requirement"),
        ({"flips": "drop<=0.1"}, "as fewer are better"),
        ({3: ">=1"}, "guard expected requirements by name"),
    ],
)
def test_bad_grammar(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_requirements(given)


@pytest.mark.parametrize("name", ["val_loss", "loss", "loss/val", "val/mae", "error_rate", "Val_RMSE_epoch"])
def test_a_loss_is_known_by_its_name(name):
    assert Requirement.read(name, "rise<=0.1").relation == "rise<="
    for text in ("drop<=0.1", ">=0.1"):
        with pytest.raises(ValueError, match="X, as less is better"):
            Requirement.read(name, text)


@pytest.mark.parametrize("name", ["val/error_free_rate", "error_reduction", "val_acc", "lossless", "terror"])
def test_of_other_names_nothing_is_known(name):
    for text in ("drop<=0.1", "rise<=0.1", ">=0.1", "<=0.1", "ratio<=2"):
        assert Requirement.read(name, text).bound in (0.1, 2)

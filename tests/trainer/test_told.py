"""What callbacks were told, as columns of a table."""

import pickle

import pytest
from torch import nn

from lit_xai import KnowledgeDistillation, StructuredPruning
from lit_xai.trainer.told import LONGEST, plain


def test_what_is_given_and_a_few_defaults_are_told():
    assert KnowledgeDistillation("dense", alpha=0.7).told == {"teacher": "dense", "alpha": 0.7, "temperature": 1.0}
    assert StructuredPruning(0.25, ignored_layers=["a", "b"]).told == {"pruning_ratio": 0.25, "ignored_layers": "a, b"}


def test_a_subclass_tells_its_own_arguments():
    class Mine(StructuredPruning):
        def __init__(self, how_much=0.5):
            super().__init__(pruning_ratio=how_much)

    assert Mine(how_much=0.3).told == {"how_much": 0.3}


def test_objects_are_told_by_name_and_not_kept():
    callback = KnowledgeDistillation(nn.Linear(2, 2))
    assert callback.told["teacher"] == "Linear"
    assert pickle.loads(pickle.dumps(callback)).told == callback.told


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (3, 3), (0.5, 0.5), (nn.Linear, "Linear"), (len, "len"), ("x" * 999, "x" * LONGEST)],
)
def test_values_are_plain(value, expected):
    assert plain(value) == expected

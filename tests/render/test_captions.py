import numpy as np
import pytest
import torch

from lit_xai.render.captions import Caption, make_captions

NAMES = ["cat", "dog", "a  tall\nhorse"]


def captions(**given):
    known = {"labels": None, "predictions": None, "probabilities": None, "class_names": None}
    return make_captions(2, **{**known, **given})


def test_nothing_known_nothing_said():
    assert captions() == [Caption(), Caption()]
    assert Caption().verdict == ""


def test_class_names_stand_for_indices_on_one_line():
    first, second = captions(labels=torch.tensor([2, 1]), predictions=[2, 0], class_names=NAMES)
    assert (first.true, first.predicted, first.correct, first.verdict) == ("a tall horse", "a tall horse", True, " ✓")
    assert (second.true, second.predicted, second.correct, second.verdict) == ("dog", "cat", False, " ✗")


def test_probabilities_of_all_classes_give_prediction_and_chance():
    chances = torch.tensor([[0.1, 0.9], [0.75, 0.25]], dtype=torch.bfloat16)
    found = captions(labels=[1, 1], probabilities=chances)
    assert [(c.predicted, c.verdict) for c in found] == [("1", " (90%) ✓"), ("0", " (75%) ✗")]


def test_the_chance_belongs_to_the_prediction_given_even_if_it_is_not_the_likeliest():
    found = captions(predictions=np.array([0, 0]), probabilities=np.array([[0.1, 0.9], [0.75, 0.25]]))
    assert [c.probability for c in found] == [0.1, 0.75]


def test_one_probability_each_is_the_predictions_own():
    assert [c.verdict for c in captions(predictions=[1, 0], probabilities=[[0.5], [1.0]])] == [" (50%)", " (100%)"]


def test_regressions_are_neither_right_nor_wrong():
    found = captions(labels=torch.tensor([[1.2345], [20.0]]), predictions=np.array([1.0, 20.0]))
    assert [(c.true, c.predicted, c.correct) for c in found] == [("1.23", "1", None), ("20", "20", None)]


def test_several_labels_at_once_are_listed():
    found = captions(labels=torch.tensor([[1, 0, 1], [0, 0, 0]]), predictions=[[1, 0, 1], [0, 1, 0]], class_names=NAMES)
    assert [(c.true, c.predicted, c.correct) for c in found] == [
        ("cat, a tall horse", "cat, a tall horse", True),
        ("none", "dog", False),
    ]


def test_names_are_taken_as_they_are_and_unknown_indices_stay_numbers():
    found = captions(labels=["cat", "dog"], predictions=np.array([0, 9]), class_names=NAMES)
    assert [(c.true, c.predicted, c.correct) for c in found] == [("cat", "cat", True), ("dog", "9", False)]
    assert captions(predictions=[-1, 0], class_names=NAMES)[0].predicted == "-1"


def test_classes_of_one_name_are_still_two_classes():
    assert [c.correct for c in captions(labels=[0, 1], predictions=[1, 1], class_names=["crane"] * 2)] == [False, True]


@pytest.mark.parametrize("name", ["labels", "predictions", "probabilities"])
@pytest.mark.parametrize("values", [[1], torch.zeros(3), 1, np.zeros((2, 2, 2))])
def test_wrong_numbers_of_entries_are_refused_by_name(name, values):
    with pytest.raises(ValueError, match=f"{name} expected one entry for each of the 2 samples, but got shape"):
        captions(**{name: values})

import pytest

from lit_xai.render.names import shorten_name, shorten_names
from lit_xai.render.text import text_width

BERT = [f"model.bert.encoder.layer.{i}.attention.self.{part}" for i in range(12) for part in ("query", "key", "value")]


@pytest.mark.parametrize(
    "name", ["fc", "layer1.0.conv1", BERT[0], "one_long_name_without_any_dots_in_it", "a." * 40 + "b"]
)
@pytest.mark.parametrize("width", [90, 150, 300])
def test_shortened_names_fit_and_keep_their_ends(name, width):
    short = shorten_name(name, width, 13)
    assert text_width(short, 13) <= width
    assert short[-1] == name[-1]
    if text_width(name, 13) <= width:
        assert short == name


def test_the_part_that_differs_is_what_stays():
    short, shared = shorten_names(BERT, 300, 13)
    assert shared == "model.bert.encoder.layer."
    assert len(set(short)) == len(BERT)
    assert all(text_width(name, 13) <= 300 for name in short)
    assert short[0] == "…0.attention.self.query"


def test_names_that_fit_are_left_alone():
    assert shorten_names(["net.fc1", "net.fc2"], 300, 13) == (["net.fc1", "net.fc2"], "")


def test_a_name_that_is_the_beginning_of_another_is_not_lost():
    names = ["encoder", "encoder.a_rather_long_name.of_a_layer"]
    short, shared = shorten_names(names, 200, 13)
    assert shared == ""
    assert short[0] == "encoder"

"""Renderers of one's own have every right that the library's have."""

import re

import pytest
import torch
from refusals import refused
from renderers import Words

from lit_xai.render import Renderer, attribution_figure, color_limit, register_renderer, unregister_renderer
from lit_xai.render.kinds import HeatmapRenderer
from lit_xai.render.registry import choose_renderer, find_renderer

TOKENS, MAPS = torch.tensor([[0, 1, 2], [3, 0, 1]]), torch.tensor([[0.5, -0.25, 0.25], [1.0, 0.0, 0.0]])


@pytest.fixture
def words():
    renderer = Words()
    register_renderer(renderer)
    yield renderer
    unregister_renderer("words")


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_a_renderer_is_chosen_where_it_suits_before_the_librarys_own(words):
    assert choose_renderer(TOKENS, MAPS) is words
    assert choose_renderer(TOKENS.float(), MAPS).name == "tabular"
    assert texts(attribution_figure(TOKENS, MAPS, title="mine")) == ["mine", "a +50%", "b -25%", "c +25%"]


def test_by_name_import_path_or_itself(words):
    floats = TOKENS.float()
    for kind in ("words", "renderers.Words", Words()):
        assert texts(attribution_figure(floats, MAPS, kind=kind))[1] == "a +50%"
        assert color_limit(MAPS, floats, kind) == 1.0
    assert find_renderer("words") is words


def test_the_one_registered_last_is_asked_first(words):
    class Later(Words):
        name = "later"

    register_renderer(Later())
    try:
        assert choose_renderer(TOKENS, MAPS).name == "later"
        register_renderer(Words())  # again: a new instance, and the last one
        assert choose_renderer(TOKENS, MAPS).name == "words"
    finally:
        unregister_renderer("later")


def test_unregistered_it_is_unknown():
    register_renderer(Words())
    unregister_renderer("words")
    assert choose_renderer(TOKENS, MAPS).name == "text"
    with refused("kind expected one of image, tabular, beeswarm, series, text, heatmap, but got 'w"):
        find_renderer("words")


def test_shapes_that_it_cannot_draw(words):
    with refused("kind='words' expected one number per token, but got attributions of shape (2, 3, 4)"):
        choose_renderer(TOKENS, torch.zeros(2, 3, 4), "words")


class Impostor(HeatmapRenderer):
    name = "image"


def test_the_librarys_own_cannot_be_replaced():
    with refused("there is a renderer 'image' already"):
        register_renderer(Impostor())
    with refused("name expected one of"):
        unregister_renderer("image")
    assert choose_renderer(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)).name == "image"


@pytest.mark.parametrize("wrong", [Words, "words", type("Nameless", (HeatmapRenderer,), {"name": None})()])
def test_only_named_instances_are_registered(wrong):
    with pytest.raises(TypeError, match="register_renderer expected an instance of a Renderer with a name"):
        register_renderer(wrong)


def test_a_class_and_a_missing_name_are_refused_with_the_fix(words):
    nameless = type("Nameless", (HeatmapRenderer,), {"name": None})()
    for given, fix in (
        (Words, "the class Words: pass an instance, Words()"),
        (nameless, "Nameless, which has no name"),
    ):
        with refused("kind expected the name, the import path or an instance of a Renderer", fix):
            find_renderer(given)
        with pytest.raises(TypeError, match=re.escape(fix)):
            register_renderer(given)


def test_an_unknown_name_is_answered_with_the_ways_to_another_renderer():
    with refused(
        "kind expected one of image, tabular, beeswarm, series, text, heatmap, but got 'w", "register_renderer"
    ):
        find_renderer("words")


class Tokens(Words):
    name = "tokens"
    needs = "token ids"

    def fits(self, inputs, attributions):
        return "int" in str(inputs.dtype)


def test_a_refusal_names_the_dtype():
    with refused("kind='tokens' expected token ids", "attributions of shape (2, 3) for float32 inputs of shape (2, 3)"):
        choose_renderer(TOKENS.float(), MAPS, Tokens())


@pytest.mark.parametrize("path", ["torch.nn.Linear", "torch.pi"])
def test_import_paths_of_other_things(path):
    with refused("kind expected the import path of a Renderer", path):
        find_renderer(path)
    assert issubclass(Words, Renderer)

"""Pictures of filters and of layers' outputs: what is drawn, what is said of it, and that it fits."""

import numpy as np
import pytest

from lit_xai.render.filters import MOST_CHANNELS, MOST_LAYERS, filters_figure, layers_figure

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (16, 3, 7, 7), (100, 1, 28, 28), (9, 4, 1, 5), (8, 2, 5, 3)])
def test_filters_of_any_shape_are_legible(shape, assert_legible, words_of):
    figure = filters_figure(RNG.normal(size=shape), title="Filters")
    assert_legible(figure)
    assert len(figure.axes[0].images) == min(shape[0], 64)
    assert any("more not shown" in words for words in words_of(figure)) == (shape[0] > 64)


def test_colors_say_the_sign():
    filters = np.array([[[[1.0]]], [[[-1.0]]], [[[0.0]]]])
    red, blue, white = (image.get_array()[0, 0] for image in filters_figure(filters).axes[0].images)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert min(white) > 0.95


def test_the_channels_with_the_largest_values_are_drawn(words_of):
    maps = np.zeros((20, 4, 4))
    strong = [3, 7, 11]
    for rank, channel in enumerate(strong):
        maps[channel] = 5 - rank
    numbers = [words for words in words_of(layers_figure([("conv", maps)])) if words.isdigit()]
    assert [int(one) for one in numbers[:3]] == strong
    assert len(numbers) == MOST_CHANNELS


@pytest.mark.parametrize("shapes", [[(8, 6, 6)], [(3, 20), (4,), (2, 9, 3)], [(1, 64, 64), (7, 1, 30)], [(5,)] * 40])
def test_layers_of_any_shape_are_legible(shapes, assert_legible, words_of):
    outputs = [
        (f"a.long.name.of.a.layer.within.a.network.{i}", RNG.normal(size=shape)) for i, shape in enumerate(shapes)
    ]
    figure = layers_figure(outputs, picture=RNG.random((3, 16, 16)), title="Layers")
    assert_legible(figure)
    names = [words for words in words_of(figure) if words.startswith("a.long")]
    assert len(names) == min(len(shapes), MOST_LAYERS)


def test_values_that_are_no_numbers_and_zeros_can_be_drawn(words_of):
    broken = np.full((2, 3, 3), np.nan)
    words = words_of(layers_figure([("broken", broken), ("silent", np.zeros(4))]))
    assert any("100% zeros" in one for one in words)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="filters expected pictures"):
        filters_figure(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="one layer or more"):
        layers_figure([])

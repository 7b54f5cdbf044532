"""Figures without inputs: the same for any inputs, with every map where it was."""

import numpy as np
import pytest
import torch

from lit_xai.render import attribution_figure, figure_to_rgb, retention_figure
from lit_xai.render.samples import blank

SHAPES = {"image": (1, 8, 8), "colors": (3, 20, 12), "series": (2, 30), "table": (5,)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("draw", [attribution_figure, retention_figure])
def test_figures_without_inputs_do_not_depend_on_them(draw, shape, rng):
    maps = rng.normal(size=(3, *shape))
    maps = (maps,) if draw is attribution_figure else (maps, maps + 0.1)
    first, second, seen = (
        figure_to_rgb(draw(rng.random((3, *shape)), *maps, shows_inputs=shown)) for shown in (False, False, True)
    )
    np.testing.assert_array_equal(first, second)
    assert (first.shape != seen.shape or (first != seen).any()) == (len(shape) > 1)  # tables are bars in any case


def test_tokens_without_inputs_do_not_depend_on_them(rng):
    maps = rng.normal(size=(3, 12))
    first, second = (
        figure_to_rgb(attribution_figure(rng.integers(0, 9, size=(3, 12)), maps, shows_inputs=False)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("samples", [1, 3, 17])
def test_a_map_alone_stands_on_white_paper(samples):
    maps = np.zeros((samples, 1, 8, 8))
    maps[:, 0, 0, 0] = 1
    figure = attribution_figure(np.zeros((samples, 1, 8, 8)), maps, shows_inputs=False, labels=[0] * samples)
    tiles = figure.axes[0].images
    assert len(tiles) == samples
    paper = np.asarray(tiles[0].get_array())[4:, 4:]
    assert (paper > 0.96 * paper.max()).all()
    assert np.ptp(paper) < 0.02 * paper.max()


def test_words_can_be_read_without_inputs(rng, assert_legible):
    names = ["T-shirt/top", "a class whose name goes on and on (and on), variety yellow", "$x_1$ & <b>"]
    about = {"labels": [0, 1, 2], "predictions": [0, 2, 1], "class_names": names, "title": "Saliency\nepoch 3"}
    maps = rng.normal(size=(3, 1, 28, 28))
    assert_legible(attribution_figure(maps, maps, **about, shows_inputs=False))


def test_blanks_have_shape_and_dtype():
    for one in (torch.ones(2, 3, dtype=torch.int32), np.ones((2, 1), dtype=np.float16)):
        found = blank(one)
        assert (type(found), found.shape, found.dtype) == (type(one), one.shape, one.dtype)
        assert not found.any()

import numpy as np
import pytest
import torch

from lit_xai.render import attribution_figure, figure_to_rgb


def strips(figure):
    rgb = figure_to_rgb(figure).astype(int)
    boxes = [[round(edge) for edge in image.get_extent()] for image in figure.axes[0].images]
    return [rgb[top + 2 : bottom - 2, left + 2 : right - 2] for left, right, bottom, top in boxes]


def test_positions_run_from_left_to_right_in_the_colors_of_their_signs():
    maps = np.zeros((2, 12, 30))
    maps[0, :, :10], maps[0, :, 20:], maps[1] = 1, -1, 0
    strip, empty = strips(attribution_figure(maps, maps, kind="heatmap"))
    third = strip.shape[1] // 3 - 10
    assert (strip[:, :third, 0] > strip[:, :third, 2] + 60).all()
    assert (strip[:, -third:, 2] > strip[:, -third:, 0] + 60).all()
    assert (empty[:, :third] > 240).all()


@pytest.mark.parametrize(("channels", "drawn"), [(1, 1), (4, 4), (5, 0)])
def test_series_of_few_channels_are_drawn_over_their_maps(rng, channels, drawn):
    series, maps = rng.normal(size=(2, 1, channels, 60))
    axes = attribution_figure(series, maps, kind="heatmap").axes[0]
    left, right, bottom, top = axes.images[0].get_extent()
    assert len(axes.lines) == drawn
    for channel, line in enumerate(axes.lines):
        x, y = line.get_data()
        assert left < x.min() < x.max() < right
        lane = (bottom - top) / channels
        assert top + lane * channel < y.min() < y.max() < top + lane * (channel + 1)
        # The page is counted from above, values from below: the line is the series upside down, scaled.
        assert np.corrcoef(y, series[0, channel])[0, 1] == pytest.approx(-1)


def test_token_ids_are_no_series():
    figure = attribution_figure(torch.randint(0, 99, (2, 20)), torch.rand(2, 20, 8), kind="heatmap")
    assert len(figure.axes[0].images) == 2
    assert not figure.axes[0].lines


def test_the_axis_names_its_ends_and_the_rows(words_of):
    maps = np.ones((1, 12, 250))
    assert {"0", "249", "position (each map has 12 rows)"} < set(
        words_of(attribution_figure(maps, maps, kind="heatmap"))
    )

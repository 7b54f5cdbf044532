import numpy as np
import pytest
import torch

from lit_xai.render import attribution_figure, figure_to_rgb
from lit_xai.render.series import SeriesRenderer

NAMES = [f"LPC {i}" for i in range(1, 13)]


def tiles(figure):
    """The drawn pixels of every map, without its frame."""
    rgb = figure_to_rgb(figure).astype(int)
    boxes = [[round(edge) for edge in image.get_extent()] for image in figure.axes[0].images]
    return [rgb[top + 2 : bottom - 2, left + 2 : right - 2] for left, right, bottom, top in boxes]


def series(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_rows_are_channels_and_columns_are_frames_in_the_colors_of_their_signs():
    maps = np.zeros((1, 12, 30))
    maps[0, 0, :10], maps[0, 11, 20:] = 1, -1
    (tile,) = tiles(attribution_figure(series(1, 12, 30), maps, feature_names=NAMES))
    row, third = tile.shape[0] // 12, tile.shape[1] // 3
    first, last = tile[2 : row - 3, : third - 4], tile[-row + 4 :, -third + 4 :]
    assert (first[..., 0] > first[..., 2] + 60).all()
    assert (last[..., 2] > last[..., 0] + 60).all()
    assert (tile[2 : row - 3, third + 4 :] > 240).all()
    assert (tile[row + 3 : -row - 3] > 240).all()


def test_a_long_map_keeps_the_shares_of_its_cells():
    maps = np.zeros((1, 2, 1001))
    maps[0, 0, 1000], maps[0, 1, :3] = 4, (1, -2, 1)
    shares = SeriesRenderer().find_shares(series(1, 2, 1001), maps)
    assert shares.cell == 4
    assert shares.values.shape == (1, 2, 251)
    assert shares.values[0, 0, 250] == 0.5
    assert shares.values[0, 1, 0] == 0  # signs of one cell cancel
    assert shares.totals.tolist() == [8]


def test_the_last_cell_of_a_long_map_ends_where_the_series_does():
    maps = np.zeros((1, 1, 561))  # cells of 3 positions: 187 of them
    maps[0, 0, :280] = 1
    (tile,) = tiles(attribution_figure(series(1, 1, 561), maps, shows_inputs=False))
    colored = (tile[..., 0] > tile[..., 2] + 20).any(0)
    assert np.flatnonzero(colored).max() == pytest.approx(tile.shape[1] * 280 / 561, abs=4)


def test_a_coarse_map_is_drawn_at_the_length_of_the_series():
    maps = torch.zeros(1, 1, 8)
    maps[0, 0, :4] = 1
    shares = SeriesRenderer().find_shares(torch.zeros(1, 12, 32), maps)
    assert shares.values.shape == (1, 1, 32)
    assert shares.values.sum() == pytest.approx(1)
    assert (shares.values[0, 0, :14] > 0).all()
    assert not shares.values[0, 0, 18:].any()


@pytest.mark.parametrize(("channels", "drawn"), [(1, 1), (4, 4), (5, 0)])
@pytest.mark.parametrize("shows_inputs", [True, False])
def test_series_of_few_channels_are_drawn_as_lines_where_they_may_be(channels, drawn, shows_inputs):
    x = series(1, channels, 60)
    axes = attribution_figure(x, series(1, channels, 60), shows_inputs=shows_inputs).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 60]
    assert len(lines) == drawn * shows_inputs
    for channel, line in enumerate(lines):
        # The page is counted from above: the line is the series upside down, scaled.
        assert np.corrcoef(line.get_ydata(), x[0, channel])[0, 1] == pytest.approx(-1)


def test_channels_are_named_and_those_that_count_most_are_told(words_of):
    maps = np.zeros((2, 12, 29))
    maps[:, 3, :3], maps[:, 8, 5] = 1, -1
    words = words_of(attribution_figure(series(2, 12, 29), maps, feature_names=NAMES))
    assert words.count("LPC 12") == 2
    assert "largest shares: LPC 4 75%, LPC 9 25%, LPC 1 0% (even: 8%)" in words


def test_names_have_to_be_one_per_channel():
    with pytest.raises(ValueError, match="feature_names expected 12 names, one per feature, but got 3"):
        attribution_figure(series(2, 12, 29), series(2, 12, 29), feature_names=["a", "b", "c"])


def test_the_axis_is_in_frames_or_in_seconds(words_of):
    x = series(1, 3, 100)
    assert {"0", "20", "80", "frame"} < set(words_of(attribution_figure(x, x)))
    assert {"0.0", "0.2", "1.0", "seconds"} < set(words_of(attribution_figure(x, x, sample_rate=100.0)))


@pytest.mark.parametrize(
    "shape", [(2, 1, 40), (20, 3, 16_000), (12, 12, 29), (3, 64, 300), (2, 1, 22, 400), (1, 2, 2), (2, 300, 50)]
)
@pytest.mark.parametrize("rate", [None, 16_000])
def test_every_size_is_legible(shape, rate, assert_legible):
    x, n = series(*shape), shape[0]
    figure = attribution_figure(
        x,
        series(*shape),
        title="IntegratedGradients, target label, baseline zero\nepoch 3, step 21",
        labels=np.arange(n),
        predictions=np.zeros(n, int),
        probabilities=np.full(n, 0.875),
        class_names=["a speaker with a very long name indeed", *map(str, range(20))],
        feature_names=["left microphone of the array", *map(str, range(1, shape[-2]))],
        sample_rate=rate,
        kind="series",
    )
    assert_legible(figure)


def test_samples_without_a_place_are_counted(words_of):
    x = series(13, 12, 29)
    assert "frame · 3 more samples not shown" in words_of(attribution_figure(x, x))


def test_a_map_of_nothing_says_so(words_of):
    x = series(2, 12, 29)
    maps = np.stack([np.zeros((12, 29)), np.full((12, 29), np.nan)])
    assert {"all zero", "no finite attribution"} < set(words_of(attribution_figure(x, maps)))

"""Figures of explanations before and after: one scale, what stands in each column, and words that can be read."""

import numpy as np
import pytest
from refusals import refused

from lit_xai.render import attribution_figure, figure_to_rgb, retention_figure, save_png
from lit_xai.render.kinds import HeatmapRenderer
from lit_xai.render.shares import shares_of_total

LONG = ["a class with a very long name indeed", "Ankle boot", "$x$"]


def tiles(figure):
    """The drawn pixels of every tile, in reading order."""
    rgb = figure_to_rgb(figure).astype(int)
    boxes = [[round(edge) for edge in image.get_extent()] for image in figure.axes[0].images]
    return [rgb[top + 2 : bottom - 2, left + 2 : right - 2] for left, right, bottom, top in boxes]


def shapes(rng):
    return {
        "image": (rng.random((3, 1, 8, 8)), rng.normal(size=(2, 3, 1, 8, 8))),
        "gradcam": (rng.random((3, 3, 9, 17)), rng.normal(size=(2, 3, 5, 2, 4))),
        "large": (rng.random((3, 3, 200, 150)), rng.normal(size=(2, 3, 3, 200, 150))),
        "series": (rng.normal(size=(3, 2, 50)), rng.normal(size=(2, 3, 2, 50))),
        "tokens": (rng.integers(0, 9, size=(3, 12)), rng.normal(size=(2, 3, 12, 5))),
        "table": (rng.normal(size=(3, 30)), rng.normal(size=(2, 3, 30))),
        "one feature": (rng.normal(size=(3, 1)), rng.normal(size=(2, 3, 1))),
    }


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", ["image", "gradcam", "large", "series", "tokens", "table", "one feature"])
def test_every_word_is_legible_whatever_is_explained(name, known, rng, assert_legible, tmp_path):
    inputs, (reference, present) = shapes(rng)[name]
    answers = {
        "similarity": [0.9, -0.2, 1.0],
        "labels": [0, 1, 2],
        "reference_predictions": [0, 0, 2],
        "predictions": [1, 0, 2],
        "class_names": LONG,
        "title": "IntegratedGradients, baseline black, reference: dense, epoch 12 " * 2,
    }
    figure = retention_figure(inputs, reference, present, **(answers if known else {}))
    assert_legible(figure)
    assert save_png(figure, tmp_path / "retention.png").stat().st_size > 1000


def test_columns_are_input_reference_now_and_the_difference_of_shares():
    reference, present = np.zeros((2, 1, 1, 8, 8))
    reference[..., :4, :], present[..., :4, :4], present[..., 4:, 4:] = 5.0, -1.0, 1.0
    pictures, before, now, difference = tiles(retention_figure(np.ones((1, 1, 8, 8)), reference, present, limit=0.05))
    assert (pictures == 255).all()
    half = before.shape[0] // 2 - 8

    def signs(tile):
        corners = (tile[:half, :half], tile[:half, -half:], tile[-half:, :half], tile[-half:, -half:])
        return [int(np.sign(np.rint((one[..., 0] - one[..., 2]).mean() / 20))) for one in corners]

    assert signs(before) == [1, 1, 0, 0]
    assert signs(now) == [-1, 0, 0, 1]
    assert signs(difference) == [-1, -1, 0, 1]


def test_the_same_explanation_on_any_scale_differs_by_nothing(rng):
    maps = rng.normal(size=(1, 1, 8, 8))
    _, before, now, difference = tiles(retention_figure(np.ones((1, 1, 8, 8)), maps, 1000 * maps))
    assert (before == now).all()
    assert difference.min() > 240


def test_all_maps_of_a_figure_share_one_scale_which_the_attribution_figure_has_too(rng):
    white, maps = np.ones((2, 1, 8, 8)), rng.normal(size=(2, 2, 1, 8, 8))
    figure = tiles(retention_figure(white, *maps, limit=0.04))
    alone = [tiles(attribution_figure(white, one, limit=0.04)) for one in maps]
    for sample in range(2):
        for column in range(2):
            mine, theirs = figure[4 * sample + 1 + column], alone[column][2 * sample + 1]
            assert np.abs(mine[20, 20] - theirs[20, 20]).max() <= 3
    wider = retention_figure(white, maps[0], 1e-9 + np.eye(8)[None, None].repeat(2, 0))  # an eighth in each cell
    assert any("20%" in text.get_text() for axes in wider.axes for text in axes.get_xticklabels())


def test_captions_say_what_was_predicted_before_and_now_and_flips_are_bold(rng, words_of):
    inputs, (reference, present) = shapes(rng)["image"]
    figure = retention_figure(
        inputs,
        reference,
        present,
        similarity=[0.9, -0.25, 1.0],
        labels=[0, 1, 2],
        reference_predictions=[0, 1, 2],
        predictions=[0, 2, 2],
    )
    words = words_of(figure)
    assert {"input", "reference", "now", "true 1", "pred 1 ✓", "pred 2 ✗", "similarity \u22120.25"} <= set(words)
    assert [t.get_text() for t in figure.axes[0].texts if t.get_weight() == "bold" and "pred" in t.get_text()] == [
        "pred 2 ✗"
    ]


def test_values_are_no_other_predictions(rng, words_of):
    for kind in ("image", "table"):
        inputs = rng.normal(size=(2, 1, 8, 8) if kind == "image" else (2, 5))
        figure = retention_figure(inputs, inputs, -inputs, reference_predictions=[3.5, 4.0], predictions=[3.4, 4.1])
        assert not any("otherwise" in words for words in words_of(figure))
        assert not [t for t in figure.axes[0].texts if t.get_weight() == "bold" and "pred" in t.get_text()]


def test_of_many_features_those_that_say_nothing_have_no_place(rng, words_of):
    inputs, reference, present = rng.normal(size=(3, 8, 40))
    reference[:, 3:], present[:, 5:] = 0, 0
    words = words_of(retention_figure(inputs, reference, present))
    assert "5 of 40 features, most important first" in words
    assert {f"x{k}" for k in range(40)} & set(words) == {f"x{k}" for k in range(5)}


def test_bars_are_the_means_of_the_shares(rng):
    inputs, reference, present = rng.normal(size=(3, 20, 5))
    figure = retention_figure(inputs, reference, present)
    widths = [patch.get_width() for patch in figure.axes[1].patches]
    expected = [shares_of_total(maps).values.mean(0) for maps in (reference, present)]
    np.testing.assert_allclose(widths, np.concatenate(expected))


def test_maps_with_nothing_in_them_say_so(rng, words_of):
    inputs, (reference, present) = shapes(rng)["image"]
    present[1], reference[2] = 0, np.nan
    words = words_of(retention_figure(inputs, reference, present))
    assert "all zero" in words
    assert "no finite" in " ".join(words) or "attribution" in " ".join(words)


def test_samples_without_a_place_are_counted(rng, words_of):
    inputs = rng.random((20, 1, 8, 8))
    assert "4 more samples not shown" in words_of(retention_figure(inputs, inputs, inputs))
    strips = rng.random((17, 3, 40))
    assert any("1 more sample not shown" in words for words in words_of(retention_figure(strips, strips, strips)))


class Own(HeatmapRenderer):
    name = "own strips"


@pytest.mark.parametrize(
    ("present", "options", "message"),
    [
        (np.ones((2, 1, 8, 8)), {}, "present expected one map for each of the 3 samples of reference"),
        (np.ones((3, 8)), {}, "present expected inputs"),
        (np.ones((3, 1, 8, 8)), {"similarity": [1.0]}, "similarity expected one number for each of the 3 samples"),
        (np.ones((3, 1, 8, 8)), {"limit": 0.0}, "limit expected a positive share"),
        (np.ones((3, 1, 8, 8)), {"kind": Own()}, "kind expected one of image, tabular, series, text, heatmap"),
    ],
)
def test_what_does_not_belong_together_is_refused(present, options, message):
    images = np.ones((3, 1, 8, 8))
    with refused(message):
        retention_figure(images, images, present, **options)


@pytest.mark.parametrize(("rate", "unit"), [(None, "frame"), (100.0, "seconds")])
def test_series_have_a_time_axis_and_their_channels_are_told(rng, rate, unit, words_of, assert_legible):
    x, (before, now) = rng.normal(size=(2, 12, 50)).astype(np.float32), rng.normal(size=(2, 2, 12, 50))
    names = [f"LPC {i}" for i in range(1, 13)]
    figure = retention_figure(x, before, now, feature_names=names, sample_rate=rate)
    assert_legible(figure)
    assert f"{unit} · rows: LPC 1 … LPC 12" in words_of(figure)


def test_long_series_are_drawn_as_lines_over_all_positions(rng):
    x = rng.normal(size=(1, 2, 2000)).astype(np.float32)
    lines = [line for line in retention_figure(x, x, x).axes[0].lines if len(line.get_xdata()) == 2000]
    assert len(lines) == 2

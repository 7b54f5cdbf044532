import numpy as np
import pytest

from lit_xai.render import attribution_figure, figure_to_rgb
from lit_xai.render.canvas import AGAINST, FOR


def bars(figure):
    """The widths of the absolute bars and of the signed ones, and the colors of these."""
    from matplotlib.colors import to_hex

    patches = figure.axes[1].patches
    half = len(patches) // 2
    return (
        [patch.get_width() for patch in patches[:half]],
        [patch.get_width() for patch in patches[half:]],
        [to_hex(patch.get_facecolor()) for patch in patches[half:]],
    )


def names_on(figure, names):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text() in names]


def test_bars_are_the_mean_shares_of_the_samples(rng):
    maps = rng.normal(size=(6, 4))
    shares = maps / np.abs(maps).sum(axis=1, keepdims=True)
    absolute, signed, colors = bars(attribution_figure(maps, maps))
    assert absolute == pytest.approx(np.abs(shares).mean(axis=0))
    assert signed == pytest.approx(shares.mean(axis=0))
    assert colors == [FOR if share > 0 else AGAINST for share in shares.mean(axis=0)]


def test_red_bars_go_right_and_blue_ones_left():
    rgb = figure_to_rgb(attribution_figure(np.ones((1, 2)), np.array([[1.0, -1.0]]), limit=0.5)).astype(int)
    inside = rgb[:-40]  # without the words of the scale
    red, blue = ((inside[..., a] > inside[..., b] + 60).nonzero() for a, b in ((0, 2), (2, 0)))
    legend = red[0].min() + 30
    right, left = (columns[rows > legend] for rows, columns in (red, blue))
    assert right.min() > left.max() - 3
    assert len(left) == pytest.approx(len(right), rel=0.05)


def test_features_keep_their_order_where_all_fit():
    names = ["age", "income", "height"]
    figure = attribution_figure(np.ones((2, 3)), np.array([[1.0, 5.0, 2.0]] * 2), feature_names=names)
    assert names_on(figure, names) == names


def test_of_many_features_the_most_important_come_first(words_of):
    maps = np.arange(40.0)[None] * np.where(np.arange(40) % 2, 1, -1)
    figure = attribution_figure(np.ones((1, 40)), maps)
    assert names_on(figure, {f"x{i}" for i in range(40)}) == [f"x{i}" for i in range(39, 23, -1)]
    assert any("16 of 40 features" in words for words in words_of(figure))


def test_long_names_are_shortened_inside(assert_legible, words_of):
    names = ["the mean of the worst concave points of the nucleus", "b", "c"]
    figure = attribution_figure(np.ones((2, 3)), np.ones((2, 3)), feature_names=names)
    assert_legible(figure)
    (short,) = [words for words in words_of(figure) if words.startswith("the mean")]
    assert short.endswith("nucleus")


def test_one_limit_means_one_axis_and_bars_beyond_it_carry_a_mark(words_of):
    first = attribution_figure(np.ones((1, 2)), np.array([[1.0, 9.0]]), limit=0.5)
    second = attribution_figure(np.ones((1, 2)), np.array([[4.0, 5.0]]), limit=0.5)
    assert first.axes[1].get_xlim() == second.axes[1].get_xlim() == (-0.5, 0.5)
    assert "▸ 90.0%" in words_of(first)
    assert {"44.4%", "▸ 55.6%"} < set(words_of(second))


def test_of_many_features_those_that_say_nothing_have_no_place(words_of):
    maps = np.zeros((4, 40))
    maps[:, [7, 3]] = 1.0, 2.0
    figure = attribution_figure(np.ones((4, 40)), maps)
    assert "2 of 40 features, most important first" in words_of(figure)
    assert [words for words in words_of(figure) if words.startswith("x")] == ["x3", "x7"]


def test_samples_without_a_map_are_left_out_and_counted(words_of):
    maps = np.array([[1.0, 3.0], [0.0, 0.0], [np.nan, np.nan]])
    figure = attribution_figure(np.ones((3, 2)), maps, labels=[0, 1, 1], predictions=[0, 1, 0])
    assert bars(figure)[0] == [0.25, 0.75]
    said = " ".join(words_of(figure))
    for part in ("mean of 1 sample ", "2 of 3 predicted correctly", "mean Σ|a| = 4", "1 left out: all zero"):
        assert part in said
    assert "1 left out: no finite attribution" in said


def test_feature_names_must_be_one_per_feature():
    with pytest.raises(ValueError, match=r"feature_names expected 3 names, one per feature, but got 2\."):
        attribution_figure(np.ones((1, 3)), np.ones((1, 3)), feature_names=["a", "b"])


SIGNS = "signs: for or against each sample's explained class"


@pytest.mark.parametrize(
    ("labels", "names", "shown"),
    [
        ([0, 0, 1], ["cat", "dog"], "mean of 3 samples: 2 of cat, 1 of dog"),
        ([0, 0, 1], None, "mean of 3 samples: 2 of class 0, 1 of class 1"),
        ([1, 1, 1], ["cat", "dog"], "mean of 3 samples of dog"),
        (list(range(6)), None, "mean of 6 samples of 6 classes"),
        ([0.5, 1.5], None, "mean of 2 samples"),
    ],
)
def test_the_classes_of_the_samples_are_written_on_the_figure(labels, names, shown, words_of, assert_legible):
    maps = np.ones((len(labels), 2))
    figure = attribution_figure(maps, maps, labels=labels, predictions=labels, class_names=names)
    assert_legible(figure)
    words = words_of(figure)
    assert any(f"{line} · ".startswith(f"{shown} · ") for line in words), words
    assert (SIGNS in words) == (isinstance(labels[0], int) and len(set(labels)) > 1)

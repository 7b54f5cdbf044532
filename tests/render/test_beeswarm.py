import numpy as np
import pytest

from lit_xai.render import attribution_figure
from lit_xai.render.beeswarm import PLAIN, stack


def dots(figure):
    """The places (share, row) and the colors of the dots of each feature."""
    return [(one.get_offsets(), one.get_facecolors()) for one in figure.axes[1].collections]


def test_each_sample_is_a_dot_at_its_share(rng):
    maps, inputs = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    shares = maps / np.abs(maps).sum(1, keepdims=True)
    for k, (places, _) in enumerate(dots(attribution_figure(inputs, maps, kind="beeswarm"))):
        np.testing.assert_allclose(places[:, 0], shares[:, k])
        assert np.abs(places[:, 1] - k).max() <= 0.4


def test_colors_follow_the_values_rank_and_not_its_size(rng):
    inputs = np.array([[0.0], [1.0], [1000.0]])
    ((_, colors),) = dots(attribution_figure(inputs, np.ones((3, 1)), kind="beeswarm"))
    ((_, same),) = dots(attribution_figure(np.array([[0.0], [1.0], [2.0]]), np.ones((3, 1)), kind="beeswarm"))
    np.testing.assert_array_equal(colors, same)
    assert len(np.unique(colors, axis=0)) == 3


def test_without_inputs_there_are_no_colors(rng, words_of):
    from matplotlib.colors import to_rgba

    figure = attribution_figure(rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), kind="beeswarm", shows_inputs=False)
    for _, colors in dots(figure):
        np.testing.assert_allclose(colors, np.broadcast_to(to_rgba(PLAIN), colors.shape))
    assert not any("low to high" in words for words in words_of(figure))


def test_dots_beyond_the_scale_are_at_its_end():
    ((first, _), _) = dots(attribution_figure(np.ones((1, 2)), np.array([[9.0, 1.0]]), kind="beeswarm", limit=0.5))
    assert first[0, 0] == 0.5


@pytest.mark.parametrize("n", [1, 2, 40, 500])
def test_any_number_of_samples_is_legible_and_stays_in_its_row(n, rng, assert_legible):
    maps = rng.normal(size=(n, 20)) ** 3
    maps[0] = 0
    figure = attribution_figure(maps, maps, kind="beeswarm", labels=[0] * n, predictions=[0] * n, title="of a table")
    assert_legible(figure)
    for row, (places, _) in enumerate(dots(figure)):
        assert np.abs(np.asarray(places)[:, 1] - row).max(initial=0) <= 0.4 + 1e-9


def test_dots_of_one_place_are_stacked_on_both_sides():
    assert sorted(stack(np.full(5, 0.3), 10)) == [-2, -1, 0, 1, 2]
    assert stack(np.array([0.0, 1.0]), 10).tolist() == [0, 0]


def test_refuses_maps_that_are_not_of_the_features():
    with pytest.raises(ValueError, match="kind='beeswarm' expected inputs and attributions"):
        attribution_figure(np.ones((1, 3)), np.ones((1, 4)), kind="beeswarm")

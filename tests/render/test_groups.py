import numpy as np
import pytest
import torch

from lit_xai.render import attribution_figure, color_limit, networks_figure, retention_figure
from lit_xai.render.groups import group_shares, single_columns
from lit_xai.render.shares import shares_of_total

GROUPS = ["age", "job", "job", "zip", "job"]


def test_shares_of_features_are_those_of_summed_attributions(rng):
    maps = rng.normal(size=(7, 5))
    maps[3] = [0, 2, -2, 0, 0]  # a category whose columns cancel, and nothing else
    maps[4] = np.nan
    found = group_shares(shares_of_total(maps), GROUPS)
    sums = np.stack([maps[:, 0], maps[:, [1, 2, 4]].sum(1), maps[:, 3]], 1)
    expected = shares_of_total(sums)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-12)
    np.testing.assert_allclose(found.totals, expected.totals, atol=1e-12)
    assert found.drawable.tolist() == [True, True, True, False, False, True, True]
    assert found.note(4) == "no finite attribution"


def test_groups_of_one_column_change_nothing(rng):
    shares = shares_of_total(rng.normal(size=(3, 4)))
    found = group_shares(shares, list("abcd"))
    np.testing.assert_allclose(found.values, shares.values)
    np.testing.assert_allclose(found.totals, shares.totals)


def test_values_of_several_columns_have_no_order():
    found = single_columns(np.arange(10.0).reshape(2, 5), GROUPS)
    np.testing.assert_array_equal(found, [[0, np.nan, 3], [5, np.nan, 8]])


def test_all_figures_of_tables_show_features_and_one_scale(rng, words_of, assert_legible):
    maps = rng.normal(size=(6, 5))
    options = {"feature_groups": GROUPS, "feature_names": ["age", "job=a", "job=b", "zip", "job=c"]}
    limit = color_limit(maps, feature_groups=GROUPS)
    figures = [
        attribution_figure(maps, maps, **options),
        attribution_figure(maps, maps, kind="beeswarm", **options),
        retention_figure(maps, maps, maps + 0.1, **options),
        networks_figure(torch.tensor(maps), {"a": torch.tensor(maps), "b": torch.tensor(maps)}, **options),
    ]
    for figure in figures:
        assert_legible(figure)
        assert {"age", "job", "zip"} <= set(words_of(figure))
        assert not any(words.startswith("job=") for words in words_of(figure))
    assert figures[0].axes[1].get_xlim() == (-limit, limit)


def test_there_is_one_group_for_each_column():
    with pytest.raises(ValueError, match="feature_groups expected 3 names, one per column, but got 2"):
        attribution_figure(np.ones((1, 3)), np.ones((1, 3)), feature_groups=["a", "b"])


def test_numbers_of_two_digits_are_not_behind_the_bars():
    maps = np.array([[1.0, -1.0, 0.2]] * 3)
    figure = retention_figure(maps, maps, maps * [1, 2, 1])
    figure.canvas.draw()
    (arrow, *_) = (text for text in figure.axes[0].texts if "→" in text.get_text())
    assert "45.5% → " in arrow.get_text()
    assert arrow.get_window_extent().x0 > figure.axes[1].get_window_extent().x1

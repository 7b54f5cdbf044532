import numpy as np
import pytest
import torch

from lit_xai.render.registry import choose_renderer, find_renderer


def choose_kind(inputs, attributions, kind=None):
    return choose_renderer(inputs, attributions, kind).name


def find_shares(inputs, attributions, kind):
    return find_renderer(kind).find_shares(inputs, attributions)


@pytest.mark.parametrize(
    ("inputs", "attributions", "kind"),
    [
        ((2, 1, 28, 28), (2, 1, 28, 28), "image"),
        ((2, 3, 32, 32), (2, 3, 32, 32), "image"),
        ((2, 4, 9, 9), (2, 4, 9, 9), "image"),
        ((2, 3, 224, 224), (2, 1, 7, 7), "image"),
        ((2, 3, 32, 32), (2, 64, 8, 8), "image"),
        ((2, 28, 28), (2, 28, 28), "image"),
        ((2, 1, 2, 2), (2, 1, 2, 2), "image"),
        ((2, 3, 32, 32), (2, 128), "tabular"),
        ((2, 30), (2, 30), "tabular"),
        ((2, 12, 12, 12), (2, 12, 12, 12), "heatmap"),
        ((2, 1, 22, 1000), (2, 1, 22, 1000), "series"),
        ((2, 12, 1000), (2, 12, 1000), "series"),
        ((2, 3, 5), (2, 3, 5), "series"),
        ((2, 12, 29), (2, 1, 8), "series"),
        ((2, 12, 29), (2, 64, 8), "heatmap"),
        ((2, 12, 1), (2, 12, 1), "heatmap"),
        ((2, 22, 5, 100), (2, 22, 5, 100), "heatmap"),
        ((2, 20), (2, 20, 64), "heatmap"),
        ((2, 3, 8, 16, 16), (2, 3, 8, 16, 16), "heatmap"),
    ],
)
@pytest.mark.parametrize("make", [torch.zeros, np.zeros])
def test_the_shapes_choose_the_picture(make, inputs, attributions, kind):
    assert choose_kind(make(inputs), make(attributions)) == kind


def test_whole_numbers_are_no_series():
    assert choose_kind(torch.zeros(2, 3, 99, dtype=torch.int64), torch.zeros(2, 3, 99)) == "heatmap"


def test_token_ids_are_no_features():
    assert choose_kind(torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 9)) == "text"


def test_a_kind_named_wins_where_it_fits():
    assert choose_kind(torch.zeros(2, 3, 5), torch.zeros(2, 3, 5), "image") == "image"
    assert choose_kind(torch.zeros(2, 28, 28), torch.zeros(2, 28, 28), "heatmap") == "heatmap"


@pytest.mark.parametrize(("misspelt", "meant"), [("images", "image"), ("tabluar", "tabular"), ("heat_map", "heatmap")])
def test_misspelt_kinds_are_answered_with_the_nearest(misspelt, meant):
    with pytest.raises(ValueError, match=rf"kind expected one of .* but got '{misspelt}'\. Did you mean '{meant}'"):
        choose_kind(torch.zeros(2, 30), torch.zeros(2, 30), misspelt)


@pytest.mark.parametrize(
    ("kind", "inputs", "attributions"),
    [
        ("image", (2, 784), (2, 784)),
        ("image", (2, 7, 9, 9), (2, 7, 9, 9)),
        ("image", (2, 3, 9, 9), (2, 64)),
        ("tabular", (2, 3, 9, 9), (2, 3, 9, 9)),
    ],
)
def test_kinds_that_do_not_fit_say_what_they_need(kind, inputs, attributions):
    with pytest.raises(ValueError, match=f"kind='{kind}' expected .* but got attributions of shape"):
        choose_kind(torch.zeros(inputs), torch.zeros(attributions), kind)


@pytest.mark.parametrize(
    ("inputs", "attributions"), [((2, 3), (3, 3)), ((2,), (2,)), ((2, 3), (2,)), ((0, 3), (0, 3)), ((2, 0), (2, 0))]
)
def test_shapes_of_different_batches_are_refused(inputs, attributions):
    with pytest.raises(ValueError, match=r"one map for each sample of inputs, .* but got shape"):
        choose_kind(torch.zeros(inputs), torch.zeros(attributions))


def test_a_tuple_of_tensors_is_refused():
    with pytest.raises(TypeError, match="attributions expected one tensor or array, but got tuple"):
        choose_kind(torch.zeros(2, 3), (torch.zeros(2, 3),))


def test_channels_are_summed_with_their_signs():
    maps = torch.zeros(1, 3, 8, 8)
    maps[0, :, 0, 0] = torch.tensor([3.0, -1.0, 0.0])
    maps[0, :, 0, 1] = torch.tensor([-1.0, -1.0, 0.0])
    assert find_shares(maps, maps, "image").values[0, 0, :3].tolist() == [0.5, -0.5, 0]


def test_channels_that_cancel_beyond_numbers_are_counted_without_a_warning():
    maps = np.zeros((1, 2, 8, 8))
    maps[0, :, 0, 0] = np.inf, -np.inf
    maps[0, 0, 4, 4] = 1
    assert find_shares(np.zeros((1, 3, 8, 8)), maps, "image").total(0) == "Σ|a| = 1, 1 NaN/Inf"


def test_embeddings_are_summed_to_one_number_per_token(rng):
    maps = rng.normal(size=(2, 5, 16))
    values = find_shares(np.zeros((2, 5), dtype=np.int64), maps, "heatmap").values
    assert values.shape == (2, 1, 5)
    tokens = maps.sum(axis=-1)
    assert values[:, 0] == pytest.approx(tokens / np.abs(tokens).sum(axis=1, keepdims=True))

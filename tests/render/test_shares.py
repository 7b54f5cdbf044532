import numpy as np
import pytest
import torch

from lit_xai.render.shares import percent, pool, resize, round_up, shares_of_total, to_array


def test_absolute_shares_of_every_map_sum_to_one_and_keep_their_signs(rng):
    maps = rng.normal(size=(5, 7, 6)) * np.array([1e-9, 1, 3, 50, 1e9])[:, None, None]
    shares = shares_of_total(maps)
    assert np.abs(shares.values).sum(axis=(1, 2)) == pytest.approx(np.ones(5))
    assert (np.sign(shares.values) == np.sign(maps)).all()
    assert shares.totals == pytest.approx(np.abs(maps).sum(axis=(1, 2)))


@pytest.mark.parametrize("factor", [1e-6, 7.0, 1e12])
def test_shares_do_not_depend_on_the_size_of_the_logits(rng, factor):
    maps = rng.normal(size=(3, 9))
    assert shares_of_total(factor * maps).values == pytest.approx(shares_of_total(maps).values)


@pytest.mark.parametrize("value", [1e308, 5e-324])
def test_shares_survive_totals_that_overflow_or_vanish(value):
    assert shares_of_total(np.full((1, 4), value)).values == pytest.approx(np.full((1, 4), 0.25))


def test_empty_maps_say_why():
    nan, inf = float("nan"), float("inf")
    shares = shares_of_total(np.array([[0.0, 0.0], [nan, nan], [inf, -inf], [nan, 2.0], [1.0, 3.0]]))
    assert [shares.note(i) for i in range(5)] == ["all zero", *["no finite attribution"] * 2, "", ""]
    assert [shares.total(i) for i in range(5)] == ["Σ|a| = 0", "", "", "Σ|a| = 2, 1 NaN/Inf", "Σ|a| = 4"]
    assert shares.values[3].tolist() == [0, 1]
    assert shares.drawable.tolist() == [False, False, False, True, True]


def test_resized_maps_interpolate_between_pixel_centres_and_keep_their_total():
    # A ramp across four cells, eight pixels: linear between the centres, flat beyond the outermost ones.
    ramp = np.tile(np.array([0.0, 1.0, 2.0, 3.0]), (1, 4, 1))
    expected = np.array([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    fine = resize(shares_of_total(ramp), (8, 8))
    assert fine.values[0, 3] == pytest.approx(expected / (8 * expected.sum()))
    assert np.abs(fine.values).sum() == pytest.approx(1)
    assert fine.totals == pytest.approx([24])


@pytest.mark.parametrize(("height", "width", "longest"), [(7, 5, 3), (9, 9, 4), (224, 224, 128), (3, 10, 10)])
def test_pooled_cells_hold_the_sum_of_their_pixels(rng, height, width, longest):
    shares = shares_of_total(rng.normal(size=(2, height, width)))
    small = pool(shares, longest)
    assert max(small.values.shape[1:]) <= longest
    assert small.values.sum(axis=(1, 2)) == pytest.approx(shares.values.sum(axis=(1, 2)))
    assert small.values[1, -1, -1] == pytest.approx(
        shares.values[1, (small.values.shape[1] - 1) * small.cell :, (small.values.shape[2] - 1) * small.cell :].sum()
    )


@pytest.mark.parametrize("value", [1e-7, 0.00999, 0.01, 0.0100001, 0.3, 0.1 + 0.2, 4.9, 5.1])
def test_round_up_gives_the_next_readable_number(value):
    rounded = round_up(value)
    assert value * (1 - 1e-6) <= rounded <= 2 * value
    assert f"{rounded:e}"[0] in "1235"
    assert float(f"{rounded:.0e}") == rounded


def test_percent_never_writes_powers_of_ten():
    assert [percent(share) for share in (1, 0.05, 0.001, 2e-5, 5e-8)] == ["100%", "5%", "0.1%", "0.002%", "0.000005%"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_to_array_takes_every_real_dtype_and_leaves_the_tensor_alone(dtype):
    tensor = torch.tensor([0, 1]).to(dtype)
    array = to_array(tensor, "inputs")
    array += 1
    assert array.tolist() == [1, 2]
    assert tensor.tolist() == [0, 1]


@pytest.mark.parametrize("values", [np.array(["a"]), np.array([1j]), torch.tensor([1j]), np.array([None])])
def test_to_array_refuses_what_is_no_real_number(values):
    with pytest.raises(TypeError, match="inputs expected a tensor or array of real numbers, but got"):
        to_array(values, "inputs")

"""Similarities of maps, against NumPy and SciPy."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lit_xai.retention.metrics import ExplanationSimilarity
from lit_xai.retention.similarity import (
    is_zero,
    maps_of,
    signed_cosine,
    signed_rank_correlation,
)

MAPS = arrays(np.float64, (3, 6), elements=st.sampled_from([-2.0, -0.5, 0.0, 0.0, 1.0, 3.5, 1e-12, -1e8]))


@given(MAPS, MAPS)
@settings(deadline=None)
def test_cosine_is_numpys(one, other):
    found = signed_cosine(torch.tensor(one), torch.tensor(other))
    for row, (a, b) in enumerate(zip(one, other, strict=True)):
        if a.any() and b.any():
            a, b = a / np.abs(a).max(), b / np.abs(b).max()
            assert found[row] == pytest.approx(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), abs=1e-12)
        else:
            assert found[row] == float(not a.any() and not b.any())


@given(MAPS, MAPS)
@settings(deadline=None)
def test_rank_correlation_is_scipys(one, other):
    found = signed_rank_correlation(torch.tensor(one), torch.tensor(other))
    for row, (a, b) in enumerate(zip(one, other, strict=True)):
        if not a.any() or not b.any():
            assert found[row] == float(not a.any() and not b.any())
        elif len(set(a)) == 1 or len(set(b)) == 1:
            assert found[row] == 0
        else:
            assert found[row] == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-9)


@pytest.mark.parametrize("similar", [signed_cosine, signed_rank_correlation])
def test_signs_scales_and_padding(similar):
    one = torch.randn(5, 40)
    assert torch.allclose(similar(one, 3 * one), torch.ones(5).double())
    assert torch.allclose(similar(one, -one), -torch.ones(5).double())
    mask = torch.arange(40).expand(5, 40) < 30
    other = torch.randn(5, 40)
    cut = similar(one[:, :30], other[:, :30])
    assert torch.allclose(similar(one, other, mask), cut)
    assert torch.allclose(similar(1e-200 * one.double(), one.double()), torch.ones(5).double())


def test_independent_maps_are_near_zero():
    found = signed_cosine(torch.randn(200, 784), torch.randn(200, 784))
    assert abs(float(found.mean())) < 0.02


def test_channels_and_widths_are_summed():
    image, tokens, series = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 8), torch.randn(2, 3, 9)
    assert torch.equal(maps_of({"": image}), image.double().sum(1).reshape(2, 20))
    assert torch.equal(maps_of({"": tokens}, is_layer=True), tokens.double().sum(2))
    assert maps_of({"": series}).shape == (2, 27)
    assert maps_of({"a": image, "b": torch.randn(2, 6)}).shape == (2, 26)
    assert maps_of({"x": torch.randn(11, 4)}, whole=True).shape == (1, 44)


def test_the_metric_is_the_mean_over_all_updates():
    one, other = torch.randn(10, 20), torch.randn(10, 20)
    one[3] = 0
    agree = torch.arange(10) % 3 > 0
    metric, whole = ExplanationSimilarity(), ExplanationSimilarity()
    metric.update(one[:4], other[:4], agree[:4])
    metric.update(one[4:], other[4:], agree[4:])
    whole.update(one, other, agree)
    values = signed_cosine(one, other)
    found = metric.compute()
    assert found["similarity"] == pytest.approx(float(values.mean()))
    assert found["agreeing"] == pytest.approx(float(values[agree].mean()))
    assert found["disagreeing"] == pytest.approx(float(values[~agree].mean()))
    assert found["zero_maps"] == 1 == int(is_zero(one).sum())
    assert all(torch.allclose(found[name], value) for name, value in whole.compute().items())


def test_an_unknown_similarity_is_named():
    with pytest.raises(ValueError, match="similarity expected one of cosine, rank"):
        ExplanationSimilarity("ssim")

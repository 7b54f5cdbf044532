"""Curves and lines of similarity."""

import pytest
import torch

from lit_xai.retention.intervals import mean_interval
from lit_xai.retention.lines import charts, lines, similarity_numbers
from lit_xai.retention.retention import References, summarize


def test_the_interval_is_that_of_the_mean_and_missing_where_samples_are_few():
    similarity = torch.rand(64, generator=torch.Generator().manual_seed(0))
    numbers = similarity_numbers("IG", similarity)
    assert numbers["similarity/IG/lower"] == pytest.approx(mean_interval(similarity).low)
    assert numbers["similarity/IG/lower"] < numbers["similarity/IG"] < numbers["similarity/IG/upper"]
    assert list(similarity_numbers("IG", similarity[:9])) == ["similarity/IG"]
    assert [len(charts("IG", n)) for n in (9, 64)] == [2, 3]


@pytest.mark.parametrize("null", [0.1, 0.9])  # where retention says something, and where it does not
def test_lines_are_similarities(null):
    generator = torch.Generator().manual_seed(0)
    nulls = null + 0.01 * torch.randn(5, 64, generator=generator)
    rung = 0.8 + 0.01 * torch.randn(64, generator=generator)
    found = summarize("IG", torch.full((64,), 0.5), References(nulls, {"4 bits": rung}))
    assert (found.retention is None) == (null > 0.5)
    drawn = lines(found)
    assert drawn["retention/lines/IG/4 bits"] == pytest.approx(float(rung.mean()), abs=1e-6)
    assert drawn["retention/lines/IG/untrained network"] == pytest.approx(float(nulls.mean()), abs=1e-6)

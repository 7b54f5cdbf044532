"""Well-known architectures: cut to 70% of the cost, quantized and exported, each held to an oracle that can fail."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES, HAS_TIMM, cut, made, measure, oracle

NAMES = [name for name in ARCHITECTURES if HAS_TIMM or not name.startswith("timm")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_cut_quantized_and_exported(name):
    row = measure(name)
    assert row.difference < 1e-9
    # Or the lowest share, with the reason for the rest.
    assert row.share < 0.73 or row.reasons
    assert row.integer == row.layers or (name == "u-net" and row.integer == row.layers - 2)  # its transposed ones
    assert float(row.exported) < 1e-4
    assert float(row.exported_integers) < 0.1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["u-net", pytest.param("HF GPT-2", marks=pytest.mark.slow)])
def test_the_oracle_sees_other_channels(name):
    network, inputs = made(name)
    step, _ = cut(network, inputs, 0.8)
    other = copy.deepcopy(step)
    for entry in other["kept"]:
        _, _, size, kept = entry
        entry[3] = sorted((i + 1) % size for i in kept)  # of every layer the next ones
    torch.testing.assert_close(oracle(network, inputs, step), 0.0, atol=1e-9, rtol=0.0)
    assert oracle(network, inputs, step, zeroed=other) > 1e-3

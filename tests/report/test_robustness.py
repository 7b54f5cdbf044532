"""Tests of what is measured on disturbed inputs."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.data.corruption import CORRUPTIONS
from lit_xai.report import words
from lit_xai.report.comparison import CompareOptions, compare_networks
from lit_xai.report.estimates import drop, share

QUICK = {"explainers": [], "rounds": 0}
MEAN, STD = 0.3, 0.5


def table(record):
    (found,) = [one for one in record.facts["tables"] if one["section"] == "robustness"]
    return {row[0]: row[1:] for row in found["rows"]}


def test_each_cell_is_the_metric_on_the_disturbed_images():
    torch.manual_seed(0)
    networks = {name: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)) for name in ("a", "b")}
    pixels, labels = torch.rand(90, 1, 8, 8), torch.arange(90) % 3
    data = DataLoader(TensorDataset((pixels - MEAN) / STD, labels), 32)
    record = compare_networks(networks, data, CompareOptions(mean=MEAN, std=STD, **QUICK))
    found = table(record)
    assert list(found) == ["none", "noise", "blur", "shift"]
    for name in ("noise", "blur", "shift"):
        given = (CORRUPTIONS[name](pixels) - MEAN) / STD
        with torch.no_grad():
            right = [(one(given).argmax(1) == labels).numpy() for one in networks.values()]
        expected = [words.interval(share(one)) for one in right] + [words.interval(drop(*right))]
        assert found[name] == expected


def test_rows_and_values_are_disturbed_too():
    torch.manual_seed(0)
    networks = {name: nn.Linear(5, 1) for name in ("a", "b")}
    data = [(torch.randn(60, 5), torch.randn(60, 1))]
    assert list(table(compare_networks(networks, data, CompareOptions(**QUICK)))) == ["none", "noise", "missing"]


def test_token_ids_and_an_option_have_none():
    torch.manual_seed(0)
    networks = {name: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2)) for name in ("a", "b")}
    data = [(torch.randint(9, (40, 5)), torch.arange(40) % 2)]
    record = compare_networks(networks, data, CompareOptions(**QUICK))
    assert not [one for one in record.facts["tables"] if one["section"] == "robustness"]
    data = [(torch.randn(40, 5), torch.arange(40) % 2)]
    networks = {name: nn.Linear(5, 2) for name in ("a", "b")}
    record = compare_networks(networks, data, CompareOptions(corruption=False, **QUICK))
    assert not [one for one in record.facts["tables"] if one["section"] == "robustness"]

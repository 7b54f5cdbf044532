"""Tests of what a report holds of samples."""

import base64

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.report.comparison import CompareOptions, compare_networks
from lit_xai.report.writing import FILES, verify, write

KINDS = {
    "images": lambda: torch.rand(40, 1, 8, 8),
    "table": lambda: torch.randn(40, 6),
    "tokens": lambda: torch.randint(9, (40, 6)),
}


class Blind(nn.Module):
    """Answers by what it was given last: its outputs and explanations say nothing of its inputs."""

    def __init__(self, classes=3):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(classes))

    def forward(self, x):
        return self.bias.expand(len(x), -1) + 0 * x.flatten(1).float().sum(1, keepdim=True)


def folder_of(tmp_path, inputs, **options):
    torch.manual_seed(0)
    networks = {"dense": Blind(), "other": Blind()}
    data = DataLoader(TensorDataset(inputs, torch.arange(40) % 3), 20)
    options = CompareOptions(explainers=["Occlusion"], nulls=0, rounds=0, n=30, **options)
    record = compare_networks(networks, data, options)
    for split in record.facts["data"]["splits"]:
        split["hash"] = ""  # of all samples together
    tmp_path.mkdir()
    write(record, tmp_path)
    assert verify(tmp_path) == []
    return {name: (tmp_path / name).read_bytes() for name in FILES}


@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        ("images", "none"),
        ("images", "maps_only"),
        pytest.param("table", "none", marks=pytest.mark.slow),
        pytest.param("tokens", "maps_only", marks=pytest.mark.slow),
    ],
)
def test_no_byte_depends_on_inputs_that_must_not_be_shown(kind, samples, tmp_path):
    torch.manual_seed(1)
    first = folder_of(tmp_path / "a", KINDS[kind](), samples=samples)
    second = folder_of(tmp_path / "b", KINDS[kind](), samples=samples)
    assert first == second
    # The mean bars of a table are of all samples together.
    assert (b"data:image/png" in first["report.html"]) == (samples != "none" or kind == "table")
    assert (b"test sample</bdi>" in first["report.html"]) == (samples != "none" and kind == "table")


def test_what_is_shown_depends_on_the_inputs(tmp_path):
    torch.manual_seed(1)
    first, second = (folder_of(tmp_path / name, KINDS["images"]()) for name in "ab")
    assert first["report.html"] != second["report.html"]
    assert first["samples.npz"] == second["samples.npz"]


def test_a_record_keeps_pictures_that_were_given(tmp_path):
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    torch.manual_seed(0)
    networks, data = {"a": Blind(), "b": Blind()}, [(torch.rand(40, 6), torch.arange(40) % 3)]
    options = CompareOptions(explainers=[], rounds=0)
    record = compare_networks(networks, data, options, facts={"pictures": [{"title": "own", "png": png}]})
    assert [one["title"] for one in record.facts["pictures"]] == ["own", "The same samples by each network"]

"""Whole numbers that a network reads out of tensors are found, and given again in their order."""

import onnx
import onnxruntime
import pytest
import torch
from refusals import refused
from torch import nn

from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.reads import FixedReads, numbers_read

INDEX = torch.tensor([0, 2, 1])
READS = [
    lambda: int(INDEX.max()) + 1,
    lambda: INDEX.max().item() + 1,
    lambda: len(torch.zeros(INDEX.max())) + 1,
]


@pytest.mark.parametrize("read", READS)
def test_read_and_fixed(read):
    numbers = numbers_read(read)
    assert set(numbers) == {2}
    assert read() == 3
    with FixedReads([7] * len(numbers)):
        assert read() == 8
    with FixedReads([]):
        assert read() == 3


def test_conditions_and_floats_are_none():
    assert numbers_read(lambda: float(torch.tensor(2.0)) if INDEX.sum() > 0 else 0) == []


class Cuts(nn.Linear):
    """Takes as many steps of a series as the longest one has."""

    def forward(self, x, lengths):
        return super().forward(x[:, : int(lengths.max())].mean(1))


def test_lengths_that_are_the_same_for_all_samples_are_fixed(tmp_path):
    network, x = Cuts(3, 2), torch.randn(4, 6, 3)
    export_onnx(network, {"x": x, "lengths": torch.full((4,), 5)}, tmp_path / "network.onnx")
    model = onnx.load(tmp_path / "network.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props}["fixed_numbers"] == "[5]"
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    x = torch.randn(7, 6, 3)
    (found,) = session.run(None, {"x": x.numpy(), "lengths": torch.full((7,), 5).numpy()})
    assert torch.allclose(torch.from_numpy(found), network(x, torch.full((7,), 5)), atol=1e-5)


@pytest.mark.parametrize("lengths", [[5, 5, 4, 5], [4, 5, 5, 5]])
def test_lengths_that_differ_are_not(lengths, tmp_path):
    with refused("Cuts cannot be exported to ONNX", "data-dependent"):
        export_onnx(
            Cuts(3, 2), {"x": torch.randn(4, 6, 3), "lengths": torch.tensor(lengths)}, tmp_path / "network.onnx"
        )
    assert not any(tmp_path.iterdir())


class Numbered(nn.Linear):
    """Reads how many samples there are."""

    def forward(self, x, place):
        return super().forward(x) + torch.zeros(int(place.max()) + 1, 1)


def test_how_many_samples_there_are_is_not(tmp_path):
    place = torch.arange(4)
    with refused("Numbered cannot be exported to ONNX"):
        export_onnx(Numbered(3, 2), {"x": torch.randn(4, 3), "place": place}, tmp_path / "network.onnx")

"""Networks whose code torch.export does not follow by itself."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from refusals import refused
from torch import nn

from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.traceable import Traceable


class Metric:
    """Keeps a copy of its state's default, as one of torchmetrics does."""

    def __init__(self):
        self.scale = torch.tensor(2.0)
        self.default = copy.deepcopy({"scale": self.scale, "again": self.scale})


class MakesMetric(nn.Linear):
    def forward(self, x):
        return super().forward(x) * Metric().default["again"]


class Clamps(nn.Linear):
    def forward(self, x):
        bounded = torch.clamp(self.weight, 0, 0.5 / 2)
        return nn.functional.linear(x, bounded).clamp(min=-1, max=1.5)


class Counts(nn.Linear):
    """Normalizes over the dimensions of a list that torch counts, as asteroid does."""

    def forward(self, x):
        dims = torch.arange(1, x.dim())
        first, second = dims.unbind()
        return super().forward(x).transpose(first.item(), int(second)) / x.mean(dim=dims.tolist(), keepdim=True)


class Keeps(nn.Linear):
    """Keeps numbers for figures."""

    def forward(self, x):
        self.seen = x.detach().mean((0, 1)).cpu().numpy(), np.asarray(x.detach().sum(1))
        return super().forward(x)


@pytest.mark.parametrize("kind", [MakesMetric, Clamps, Counts, Keeps])
def test_the_file_computes_what_the_network_does(kind, tmp_path):
    network = kind(4, 4).eval()
    with torch.no_grad():
        network.weight.mul_(3)
    export_onnx(network, torch.rand(2, 3, 4), tmp_path / "a.onnx")
    x = torch.rand(5, 3, 4)
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": x.numpy()})
    np.testing.assert_allclose(found, network(x).detach().numpy(), atol=1e-5)


class Flips(nn.Linear):
    def forward(self, x):
        return super().forward(x.squeeze(-1).contiguous().flip(-1))


def test_windows_of_a_longer_series(tmp_path):
    export_onnx(Flips(12, 4), torch.rand(16, 32, 1)[:, :12], tmp_path / "a.onnx")


class Cuts(nn.Linear):
    def forward(self, x, lengths):
        return super().forward(x[:, : int(lengths.max())]).sum(1)


def test_what_the_data_decide_is_refused_in_plain_words(tmp_path):
    with refused("a size or a condition from a tensor's values, as in int(lengths.max())"):
        export_onnx(Cuts(4, 4), (torch.rand(2, 3, 4), torch.tensor([2, 3])), tmp_path / "a.onnx")


def test_what_was_written_to_is_not_known():
    with Traceable():
        counted = torch.arange(1, 3)
        parts = counted.unbind()
        counted.mul_(2)
        assert counted.tolist() == [2, 4]
        assert parts[1].item() == 4
        assert torch.arange(2, dtype=torch.float32).tolist() == [0.0, 1.0]


def test_who_changes_a_list_does_not_change_the_next():
    with Traceable():
        counted = torch.arange(1, 3)
        counted.tolist().append(5)
        assert counted.tolist() == [1, 2]


def test_copies_are_apart_and_what_is_the_same_stays_the_same():
    tensor = torch.ones(2)
    with Traceable():
        copied = copy.deepcopy([tensor, tensor])
    assert copied[0] is copied[1]
    copied[0].zero_()
    assert tensor.tolist() == [1, 1]


def test_integers_stay_integers():
    with Traceable():
        assert torch.arange(5).clamp(1, 3).dtype == torch.long
        assert torch.rand(2, dtype=torch.float16).clamp(0, 0.5).dtype == torch.float16

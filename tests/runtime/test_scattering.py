"""Means as sums agree with torch's own, in torch and in a file."""

import pytest
import torch
from torch import nn

from lit_xai.export.parity import OnnxPredictor
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.scattering import MeansAsSums

INDEX = torch.tensor([0, 2, 2, 0, 0])
BY_COLUMN = INDEX.view(-1, 1).expand(-1, 3)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["mean", "sum", "amax"])
def test_the_same(reduce, include_self):
    start, rows = torch.randn(4, 3), torch.randn(5, 3)
    options = {"reduce": reduce, "include_self": include_self}
    expected = start.scatter_reduce(0, BY_COLUMN, rows, **options)
    with MeansAsSums():
        torch.testing.assert_close(start.scatter_reduce(0, BY_COLUMN, rows, **options), expected)
        torch.testing.assert_close(start.clone().scatter_reduce_(0, BY_COLUMN, rows, **options), expected)


class Pool(nn.Module):
    def forward(self, rows, index):
        index = index.view(-1, 1).expand(-1, 3)
        return rows.new_zeros(4, 3).scatter_reduce_(0, index, rows, reduce="mean", include_self=False)


def test_in_a_file(tmp_path):
    inputs = {"rows": torch.randn(5, 3), "index": INDEX}
    export_onnx(Pool(), inputs, tmp_path / "model.onnx", dynamic_batch=False)
    torch.testing.assert_close(OnnxPredictor(tmp_path / "model.onnx")(inputs), Pool()(**inputs))

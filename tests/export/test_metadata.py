"""What is written into a file is read back, by this library and by ONNX Runtime, and outputs stay."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from refusals import refused
from torch import nn

from lit_xai.export.metadata import read_metadata, write_metadata
from lit_xai.runtime.onnx import export_onnx


@pytest.fixture
def path(tmp_path):
    export_onnx(nn.Linear(4, 2), torch.zeros(2, 4), tmp_path / "network.onnx")
    return tmp_path / "network.onnx"


def test_round_trip(path):
    feed = {"input": np.ones((3, 4), np.float32)}
    before = onnxruntime.InferenceSession(path).run(None, feed)[0]
    values = {"classes": ["Zürich", "a"], "mean": [0.5], "source": "epoch 3", "number": "7", "none": None}
    write_metadata(path, values)
    write_metadata(path, {"mean": [0.25], "more": {"a": [1, None]}})
    session = onnxruntime.InferenceSession(path)
    np.testing.assert_array_equal(session.run(None, feed)[0], before)
    raw = session.get_modelmeta().custom_metadata_map
    assert raw["classes"] == '["Zürich", "a"]'
    assert raw["source"] == "epoch 3"
    read = read_metadata(path)
    assert "none" not in read
    assert len(read.pop("sha256")) == 64
    assert read == {
        "classes": ["Zürich", "a"],
        "mean": [0.25],
        "source": "epoch 3",
        "number": 7,
        "more": {"a": [1, None]},
    }
    onnx.checker.check_model(onnx.load(path), full_check=True)


@pytest.mark.parametrize("value", [torch.zeros(1), {1, 2}, float("nan")])
def test_refusals(path, value):
    before = path.read_bytes()
    with refused("recipe expected plain values"):
        write_metadata(path, {"recipe": value})
    assert path.read_bytes() == before

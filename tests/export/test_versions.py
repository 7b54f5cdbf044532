"""Files are told apart by what is in them."""

import hashlib

import onnxruntime
import torch

from lit_xai.export.versions import find_versions, fingerprints


def test_fingerprints(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    assert fingerprints(tmp_path) == {"a": {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}}


def test_versions(exported):
    found = find_versions(exported.folder / "model.onnx")
    assert found["torch"] == torch.__version__
    assert found["onnxruntime"] == onnxruntime.__version__
    assert found["opset"] >= 18

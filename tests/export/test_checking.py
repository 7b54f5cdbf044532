"""Whatever happens to a file, one sentence says so."""

import itertools
import time

import onnx
import pytest
import torch
from damage import damaged_bytes
from networks import cnn
from refusals import refused

from lit_xai.export import check_onnx
from lit_xai.export.metadata import write_metadata
from lit_xai.runtime.onnx import export_onnx


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    export_onnx(cnn(), torch.zeros(2, 2, 6, 6), path)
    write_metadata(path, {"source": "a test"})
    check_onnx(path)
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_truncated(whole, share, tmp_path, capfd):
    path = tmp_path / "network.onnx"
    path.write_bytes(whole[: int(share * len(whole))])
    with refused("path expected", "ONNX file", str(path)):
        check_onnx(path)
    assert capfd.readouterr() == ("", "")


def test_every_changed_weight_is_found(whole, tmp_path):
    path, model = tmp_path / "network.onnx", onnx.load_from_string(whole)
    raw = model.graph.initializer[0].raw_data
    place = whole.index(raw)
    for offset in range(0, len(raw), 7):
        path.write_bytes(whole[: place + offset] + bytes([whole[place + offset] ^ 1]) + whole[place + offset + 1 :])
        with refused("does not agree with the checksum", "export it again"):
            check_onnx(path)


def test_a_changed_operator_is_found(whole, tmp_path):
    model = onnx.load_from_string(whole)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Sigmoid"
    onnx.save(model, tmp_path / "network.onnx")
    with refused("does not agree with the checksum"):
        check_onnx(tmp_path / "network.onnx")


@pytest.mark.parametrize("cases", [20, pytest.param(150, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_or_hold_the_same_network(cases, whole, tmp_path, capfd):
    path, graph = tmp_path / "network.onnx", onnx.load_from_string(whole).graph
    refusals = 0
    for label, content in itertools.islice(damaged_bytes(whole, seed=14), cases):
        path.write_bytes(content)
        start = time.perf_counter()
        try:
            check_onnx(path)
        except ValueError as error:
            assert "\n" not in str(error), label  # noqa: PT017  # either is fine
            refusals += 1
        else:
            assert onnx.load(path).graph == graph, label
        assert time.perf_counter() - start < 10, label
    assert refusals > 0.9 * cases
    assert capfd.readouterr() == ("", "")


def test_other_files(tmp_path, whole):
    (tmp_path / "text.onnx").write_text("no network at all")
    (tmp_path / "zeros.onnx").write_bytes(bytes(1000))
    for name in ("text.onnx", "zeros.onnx", "missing.onnx", "."):
        with refused("path expected an ONNX file", name):
            check_onnx(tmp_path / name)
    model = onnx.load_from_string(whole)
    model.graph.node[0].op_type = "Cnov"
    del model.metadata_props[:]  # as another tool writes it, without a checksum
    onnx.save(model, tmp_path / "unknown.onnx")
    with refused("breaks ONNX's rules", "Cnov"):
        check_onnx(tmp_path / "unknown.onnx")

"""ExecuTorch: a program computes what the network does, for any number of samples, and damaged ones are refused.

Its package is large and is not part of the tests' environment: pip install "lit-xai[executorch]".
"""

import pytest
import torch
from networks import cnn
from refusals import refused

from lit_xai.export import export_model
from lit_xai.models import ResNet, VisionTransformer
from lit_xai.runtime.latency import network_latency
from lit_xai.runtime.loaded import caller_of
from lit_xai.runtime.runtimes import all_threads, find_runtime, load_model

pytest.importorskip("executorch")

NETWORKS = {
    "cnn": (cnn, (2, 2, 6, 6)),
    "residual": (lambda: ResNet(8, width=8, in_channels=1), (2, 1, 12, 12)),
    "transformer": (lambda: VisionTransformer(12, 4, 1, 10, 32, 2, 2), (2, 1, 12, 12)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_computes_what_the_network_does(name, tmp_path, capfd):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network, x = make().eval(), torch.randn(shape)
    find_runtime("executorch").write(network, x, tmp_path / "model.pte", largest=4)
    model = load_model(tmp_path / "model.pte", "executorch")
    assert model.inputs["input"].shape == (None, *shape[1:])
    assert model.label.startswith("ExecuTorch ")
    for n in (1, 3, 4, 9):  # the last in parts
        x = torch.randn(n, *shape[1:])
        (found,) = model.run({"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), network(x).detach(), rtol=1e-4, atol=1e-5)
    assert capfd.readouterr() == ("", "")


def test_other_shapes_and_damaged_files(tmp_path):
    find_runtime("executorch").write(cnn(), torch.randn(2, 2, 6, 6), tmp_path / "model.pte", largest=4)
    model = load_model(tmp_path / "model.pte", "executorch")
    with refused("m.pte does not run on inputs of", "input expected the shape ['*', 2, 6, 6], but got [2, 3, 6, 6]."):
        caller_of(model, "m.pte", torch.zeros(2, 3, 6, 6))()
    content = (tmp_path / "model.pte").read_bytes()
    for damaged in (b"", b"garbage", content[: len(content) // 2], content[:-9]):
        (tmp_path / "damaged.pte").write_bytes(damaged)
        with refused("path expected a program of ExecuTorch, but"):
            load_model(tmp_path / "damaged.pte", "executorch")
    with refused("but there is no file"):
        load_model(tmp_path / "missing.pte", "executorch")
    with refused("path expected a file that ExecuTorch runs, .pte, but got model.onnx"):
        load_model(tmp_path / "model.onnx", "executorch")
    with refused("path expected a file that ONNX Runtime runs, .onnx, but got model.pte"):
        load_model(tmp_path / "model.pte")


def test_latency_of_a_network():
    found = network_latency(cnn(), torch.randn(2, 2, 6, 6), batch_size=3, runtime="executorch")
    assert (found.batch_size, found.threads) == (3, all_threads())
    assert found.milliseconds > 0


def test_an_export_with_a_program(tmp_path):
    torch.manual_seed(0)
    loader = [(torch.randn(7, 2, 6, 6), torch.randint(3, (7,)))]
    options = {"progress": False, "program": False, "batch_sizes": (1, 4), "runtimes": ["executorch"]}
    report = export_model(cnn(), loader, tmp_path / "export", **options)
    assert "model.pte" in {file.name for file in report.files}
    (row,) = [row for row in report.runtimes if row.runtime == "ExecuTorch"]
    assert (row.file, row.threads, row.agreement, row.opset) == ("model.pte", all_threads(), 1.0, None)
    assert {*row.latency} == {1, 4}
    assert "ExecuTorch" in (tmp_path / "export" / "report.md").read_text()

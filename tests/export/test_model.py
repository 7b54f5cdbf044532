"""An export as a whole: what it leaves, what it says, and that nothing else is changed."""

import fcntl
import json
import os
import struct
import sys
import termios

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import Tokens, TwoInputs, cnn
from refusals import refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from witness import digest, module_state, rng_state

from lit_xai.export import check_onnx, export_model, read_metadata
from lit_xai.quantization.quantization import quantize
from lit_xai.runtime.onnx import export_onnx

from .conftest import CLASSES, MEAN, STD

OPTIONS = {"progress": False, "program": False, "batch_sizes": (1,)}
LOADER = [(torch.randn(40, 2, 6, 6), torch.randint(3, (40,))) for _ in range(3)]


def accuracy(logits, labels):
    return float(np.mean(np.argmax(logits, 1) == labels.numpy()))


def run(path, images):
    return onnxruntime.InferenceSession(path).run(None, {"input": images.numpy()})[0]


def test_the_files(exported):
    names = ["model.onnx", "model.int8.onnx", "model.pt2", "infer.py", "layers.md", "layers.png"]
    names += ["report.md", "report.json"]
    assert [file.name for file in exported.report.files] == names
    assert sorted(file.name for file in exported.folder.iterdir()) == sorted(names)
    for name in names[:2]:
        check_onnx(exported.folder / name)
        onnx.checker.check_model(onnx.load(exported.folder / name), full_check=True)


def test_the_rows_against_onnxruntime_and_torch(exported, trained):
    fp32, ptq, fake, int8 = exported.report.rows
    outputs = {name: run(exported.folder / name, trained.images) for name in ("model.onnx", "model.int8.onnx")}
    quantized = trained.quantized(trained.images).detach().numpy()
    assert fp32.metric == pytest.approx(accuracy(outputs["model.onnx"], trained.labels))
    assert int8.metric == pytest.approx(accuracy(outputs["model.int8.onnx"], trained.labels))
    assert fake.metric == ptq.metric == pytest.approx(accuracy(quantized, trained.labels))
    same = np.argmax(outputs["model.onnx"], 1) == np.argmax(outputs["model.int8.onnx"], 1)
    assert int8.agreement == pytest.approx(same.mean())
    assert fp32.agreement == 1.0
    apart = np.abs(outputs["model.int8.onnx"] - quantized).max() / np.abs(quantized).max()
    assert int8.difference == pytest.approx(apart, rel=1e-3)
    assert int8.torch_agreement == pytest.approx(
        (np.argmax(outputs["model.int8.onnx"], 1) == np.argmax(quantized, 1)).mean()
    )
    assert fp32.difference < 1e-5
    assert fp32.metric > 0.7
    assert int8.bytes == (exported.folder / "model.int8.onnx").stat().st_size < fp32.bytes
    assert [*fp32.latency] == [*int8.latency] == [1, 64]
    assert fake.latency == {}


def test_it_says_what_runs_in_integers(exported, trained):
    layers = {name for name, m in trained.network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert layers <= {one.layer for one in exported.report.integer_operators}
    said = str(exported.report)
    assert "9 of 9 convolutions" in said
    assert "3 of 3 sums" in said
    assert said in (exported.folder / "report.md").read_text()


def test_the_metadata(exported):
    for name in ("model.onnx", "model.int8.onnx"):
        found = read_metadata(exported.folder / name)
        assert (found["classes"], found["mean"], found["std"]) == (CLASSES, MEAN, STD)
        assert found["recipe"] == {"steps": [{"kind": "quantize"}]}
        assert found["source"] == "epoch 2, in a test"
        assert found["inputs"] == ["input"]
        # Builds of an index of their own have a suffix, +cpu or +cu128, that not every package tells.
        assert torch.__version__.startswith(found["versions"]["torch"])
    assert "7 bits" in found["quantization"]["weights"]
    read = json.loads((exported.folder / "report.json").read_text())
    files = {"model.onnx", "model.int8.onnx", "model.pt2", "infer.py", "layers.md", "layers.png", "report.md"}
    assert set(read["files"]) == files
    assert read["source"] == "epoch 2, in a test"


def test_the_program(exported, trained):
    program = torch.export.load(exported.folder / "model.pt2").module()
    torch.testing.assert_close(program(trained.images[:5]), trained.network(trained.images[:5]), atol=1e-4, rtol=1e-4)


def test_nothing_is_changed(tmp_path, capfd, recwarn):
    network, x = cnn().train(), LOADER[0][0]
    quantized = quantize(network, [x], progress=False)
    dataset = TensorDataset(torch.cat([x for x, _ in LOADER]), torch.cat([y for _, y in LOADER]))
    loader = DataLoader(dataset, 16, shuffle=True, generator=torch.Generator().manual_seed(0))
    before = digest([module_state(network), module_state(quantized), rng_state(), loader.generator.get_state()])
    export_model(network, loader, tmp_path, quantized=quantized, **{**OPTIONS, "program": True})
    assert before == digest([module_state(network), module_state(quantized), rng_state(), loader.generator.get_state()])
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("context", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_in_other_modes(context, tmp_path):
    with context():
        report = export_model(cnn(), LOADER, tmp_path, **OPTIONS)
    assert report.rows[0].difference < 1e-5


def test_other_precisions_and_inputs(tmp_path):
    cases = {
        "half": (cnn().to(torch.bfloat16), [(LOADER[0][0].bfloat16(), LOADER[0][1])], {}),
        "tokens": (Tokens(), [(torch.randint(11, (40, 4)), torch.randint(3, (40,)))], {}),
        "two": (TwoInputs(), [{"left": torch.randn(9, 5), "right": torch.randn(9, 4)}], {}),
        "named": (cnn(), [{"picture": LOADER[0][0], "y": LOADER[0][1]}], {"batch_to_inputs": "picture"}),
    }
    for name, (network, loader, options) in cases.items():
        report = export_model(network, loader, tmp_path / name, **OPTIONS, **options)
        assert report.rows[0].difference < 1e-5, name


def test_a_given_file_is_kept(tmp_path):
    torch.manual_seed(7)
    earlier, network = nn.Linear(6, 3), nn.Linear(6, 3)
    loader = [(torch.randn(120, 6), torch.randint(3, (120,)))]
    export_onnx(earlier, loader[0][0], tmp_path / "earlier.onnx")
    report = export_model(
        *(network, loader, tmp_path / "export"),
        float_file=tmp_path / "earlier.onnx",
        source="the last epoch",
        **OPTIONS,
    )
    got = run(tmp_path / "export" / "model.onnx", loader[0][0])
    np.testing.assert_allclose(got, earlier(loader[0][0]).detach().numpy(), atol=1e-5)
    assert report.rows[0].metric == pytest.approx(accuracy(got, loader[0][1]))
    assert "source" not in read_metadata(tmp_path / "export" / "model.onnx")


@pytest.mark.parametrize(
    ("weak", "float_source", "warned"),
    [(True, "the weights just before epoch 0", True), (True, "", False), (False, "w", False)],
)
def test_float_weights_that_were_hardly_trained_are_said_to_be(weak, float_source, warned, tmp_path):
    torch.manual_seed(0)
    network, x = nn.Linear(6, 3), torch.randn(120, 6)
    earlier = nn.Linear(6, 3) if weak else network
    loader = [(x, network(x).argmax(1))]
    quantized = quantize(network, [x], progress=False)
    report = export_model(earlier, loader, tmp_path, quantized=quantized, float_source=float_source, **OPTIONS)
    warnings = [warning for warning in report.warnings if "which was trained further" in warning]
    assert len(warnings) == warned
    if warned:
        before, after = report.rows[0].metric, report.rows[-1].metric
        apart = f"accuracy of {before:.4f} is {100 * (after - before):.1f} points below the {after:.4f} of"
        assert warnings[0].startswith(f"model.onnx holds {float_source}, whose {apart} model.int8.onnx")


def test_training_that_made_integers_worse_is_said(tmp_path):
    torch.manual_seed(0)
    network, worse, x = nn.Linear(6, 3), nn.Linear(6, 3), torch.randn(120, 6)
    variants = {"quantized": quantize(worse, [x], progress=False), "ptq": quantize(network, [x], progress=False)}
    loader = [(x, network(x).argmax(1))]
    for source in ("the weights just before epoch 2", ""):  # only where it was trained on from there
        report = export_model(network, loader, tmp_path / str(bool(source)), ptq_source=source, **variants, **OPTIONS)
        warnings = [
            warning
            for warning in report.warnings
            if "before quantization-aware training, quantized without it" in warning
        ]
        assert len(warnings) == bool(source)
        if warnings:
            ptq, trained = report.rows[1].metric, report.rows[-1].metric
            assert f"{trained:.4f}, {100 * (ptq - trained):.1f} points below the {ptq:.4f}" in warnings[0]


def test_overwriting(tmp_path):
    network, x = cnn(), LOADER[0][0]
    report = export_model(network, LOADER, tmp_path, ptq=quantize(network, [x], progress=False), **OPTIONS)
    # Not trained so, it is called what it is, and written all the same.
    assert [row.name for row in report.rows][1:] == ["post-training quantized (torch)", "int8 (ONNX Runtime)"]
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def unread():
        raise AssertionError("nothing is to be computed")

    class Unread:
        def __iter__(self):
            return unread()

    with refused("holds model.onnx, model.int8.onnx", "overwrite=True"):
        export_model(network, Unread(), tmp_path, **OPTIONS)
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    report = export_model(network, LOADER, tmp_path, overwrite=True, **OPTIONS)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in report.files)
    assert "model.int8.onnx" not in {file.name for file in report.files}


class Interrupting:
    """A loader that is stopped by Ctrl-C on its second pass."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        yield LOADER[0]
        if self.passes > 1:
            raise KeyboardInterrupt


def test_an_interrupted_export_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        export_model(cnn(), Interrupting(), tmp_path / "export", **OPTIONS)
    assert not any(tmp_path.iterdir())


class Counting(nn.Module):
    """Computes something else once it was exported: what a wrong file would look like."""

    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Linear(6, 3), error

    def forward(self, x):
        return self.layer(x) if torch.compiler.is_compiling() else self.layer(x) + self.error


def test_a_file_that_computes_something_else_is_refused(tmp_path):
    loader = [(torch.randn(120, 6), torch.randint(3, (120,)))]
    with refused("model.onnx expected what the network computes, within 0.001", "differ by at most"):
        export_model(Counting(0.1), loader, tmp_path / "export", **OPTIONS)
    assert not any(tmp_path.iterdir())
    export_model(Counting(0.1), loader, tmp_path / "export", tolerance=0.5, **OPTIONS)


def test_an_int8_file_that_computes_something_else_is_refused(tmp_path, trained, monkeypatch):
    from lit_xai.export import files

    export = files.export_onnx
    noisy = quantize(trained.network, [trained.images[:64]], progress=False)
    with torch.no_grad():
        noisy.fc.weight.add_(torch.randn_like(noisy.fc.weight))

    def exchanged(network, *args, **kwargs):
        export(network if not hasattr(network, "fake_quantizers") else noisy, *args, **kwargs)

    monkeypatch.setattr(files, "export_onnx", exchanged)  # an exporter with an error in it
    told = (
        "model.int8.onnx expected what the quantized network computes",
        "99% equal",
        "first layer that differs is fc:",
    )
    with refused(*told):
        export_model(trained.network, trained.loader, tmp_path / "a", quantized=trained.quantized, **OPTIONS)
    assert not any(tmp_path.iterdir())


class NoProgram(nn.Module):
    """Can be written as ONNX, but not kept as a program."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x)


def test_without_a_program_there_is_a_warning(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(torch.export, "save", refuse)  # no network is known that only this refuses
    loader = [(torch.randn(20, 6), torch.randint(3, (20,)))]
    report = export_model(NoProgram(), loader, tmp_path, **{**OPTIONS, "program": True})
    assert any("There is no model.pt2" in warning and "no such thing" in warning for warning in report.warnings)
    assert not (tmp_path / "model.pt2").exists()


def test_refusals(tmp_path):
    network, folder = cnn(), tmp_path / "export"
    for arguments, said in (
        ({"opset": 11}, "opset expected an integer of at least 18, but got 11"),
        ({"threads": 0}, "threads expected"),
        ({"batch_sizes": (1, 0)}, "batch_sizes[1] expected"),
        ({"tolerance": -1}, "tolerance expected"),
        ({"mean": [0.5]}, "mean and std"),
        ({"classes": ["a", "b"]}, "classes expected 3 names"),
        ({"recipe": {"a": torch.zeros(1)}}, "recipe expected plain values"),
        ({"float_file": tmp_path / "missing.onnx"}, "there is no file"),
        ({"quantized": network}, "quantized expected a network from quantize() or from quantization-aware training"),
        ({"metric": lambda logits, labels: None}, "metric expected one number"),
    ):
        with refused(said):
            export_model(network, LOADER, folder, **{**OPTIONS, **arguments})
    with refused("loader expected one or more batches"):
        export_model(network, [], folder, **OPTIONS)
    with refused("loader expected batches that can be read again"):
        export_model(network, iter(LOADER), folder, **OPTIONS)
    assert not any(tmp_path.iterdir())


def screen(written):
    """What a terminal shows of a line that was written over: the last line."""
    shown = ""
    for part in written.split("\r"):
        shown = part + shown[len(part) :]
    return shown


def test_progress_is_shown_on_a_terminal_and_goes(tmp_path, monkeypatch, capfd):
    export_model(cnn(), LOADER, tmp_path, **{**OPTIONS, "progress": True})
    assert capfd.readouterr().err == ""  # no terminal
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        export_model(cnn(), LOADER, tmp_path, **{**OPTIONS, "progress": True}, overwrite=True)
        written = os.read(ours, 65536).decode()
    os.close(ours)
    assert "comparing the exported files:   0%" in written
    assert screen(written).strip() == ""

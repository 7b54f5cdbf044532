"""The script runs where only numpy and onnxruntime are, checks itself, and predicts what torch does."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from refusals import refused
from torch import nn

from lit_xai.export.inference import LARGEST_INSIDE, check_normalization, write_inference
from lit_xai.functional.exporting import export_onnx

from .conftest import CLASSES, MEAN, STD


def run(folder, *arguments, code=0):
    """Run the script in a fresh interpreter that reads no paths from its surroundings."""
    done = subprocess.run(
        [sys.executable, "-I", folder / "infer.py", *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": ""},
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def in_a_fresh_process(folder, code):
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); import infer\n{code}"
    done = subprocess.run([sys.executable, "-I", "-B", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_it_checks_itself(exported):
    said = run(exported.folder)
    assert "ok: differs by" in said
    assert "the digit" in said


def test_it_needs_numpy_and_onnxruntime_alone(exported):
    code = (
        "assert infer.check(infer.load())\n"
        "known = {'torch', 'lit_xai', 'lightning', 'onnx', 'torchao', 'sklearn', 'scipy', 'matplotlib'}\n"
        "print('loaded', *sorted(known & {name.split('.')[0] for name in sys.modules}))"
    )
    assert in_a_fresh_process(exported.folder, code)[-1] == "loaded"


def test_it_predicts_what_torch_does(exported, trained, tmp_path):
    raw = (trained.images[:5] * STD[0] + MEAN[0]).numpy()
    np.save(tmp_path / "many.npy", raw)
    lines = run(exported.folder, tmp_path / "many.npy").splitlines()
    expected = trained.quantized(trained.images[:5]).softmax(1).detach()
    assert len(lines) == 5
    for line, shares in zip(lines, expected, strict=True):
        best = line.split(": ", 1)[1].split(", ")[0]
        assert best.startswith(CLASSES[int(shares.argmax())])
        assert float(best.split()[-1]) == pytest.approx(float(shares.max()), abs=0.03)


@pytest.mark.parametrize(
    "form",
    [
        lambda raw: raw,
        lambda raw: raw[:, 0] if len(raw) > 1 else raw[0, 0],  # no channel
        lambda raw: np.moveaxis(raw, 1, -1),
        lambda raw: np.round(raw * 255).astype(np.uint8),
        lambda raw: raw.astype(np.float64),
    ],
)
@pytest.mark.parametrize("rows", [1, 3])
def test_arrays_of_every_form(form, rows, trained):
    from lit_xai.export import infer_template

    raw = (trained.images[:rows] * STD[0] + MEAN[0]).numpy()
    settings = {
        "inputs": {"input": {"shape": [1, 8, 8], "dtype": "float32"}},
        "normalized": "input",
        "mean": MEAN,
        "std": STD,
    }
    found = infer_template.preprocess(form(raw), "input", settings)
    assert found.dtype == np.float32
    assert found.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(found, trained.images[:rows].numpy(), atol=0.006)  # half of 1 / 255, normalised


def test_the_other_file(exported):
    assert "ok" in run(exported.folder, "--model", exported.folder / "model.onnx")
    assert "There is no file" in run(exported.folder, "--model", "nothing.onnx", code=1)


def test_a_machine_that_computes_otherwise_is_told(exported, trained, tmp_path):
    for name in ("infer.py", "model.int8.onnx"):
        (tmp_path / name).write_bytes((exported.folder / name).read_bytes())
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    export_onnx(wrong, trained.images[:2], tmp_path / "model.int8.onnx")
    assert "WRONG: differs by" in run(tmp_path, code=1)


def test_usage_errors_are_one_sentence(exported, tmp_path):
    np.save(tmp_path / "wrong.npy", np.zeros((3, 5)))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "infer.py").write_text((exported.folder / "infer.py").read_text())
    for arguments, said in (
        ([tmp_path / "wrong.npy"], "expected one or more samples of shape [1, 8, 8]"),
        ([tmp_path / "text.npy"], "cannot be read"),
        ([tmp_path / "missing.npy"], "cannot be read"),
        (["--model"], "--model expected"),
    ):
        found = run(exported.folder, *arguments, code=1)
        assert said in found
        assert "Traceback" not in found
    assert "keep infer.py beside the network" in run(tmp_path, code=1)
    assert "image.npy" in run(exported.folder, "--help")


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.users, self.image = nn.Embedding(7, 3), nn.Conv2d(2, 3, 3)

    def forward(self, user, image):
        return self.users(user) * self.image(image).mean((2, 3))


def test_several_inputs_and_no_classes(tmp_path):
    torch.manual_seed(0)
    network, inputs = Several(), {"user": torch.tensor([1, 5]), "image": torch.randn(2, 2, 4, 4)}
    export_onnx(network, inputs, tmp_path / "model.onnx")
    mean, std = [0.1, 0.2], [2.0, 0.5]
    write_inference(tmp_path, "model.onnx", inputs, mean=mean, std=std, classification=False)
    assert "ok" in run(tmp_path)
    scale, shift = torch.tensor(std).view(2, 1, 1), torch.tensor(mean).view(2, 1, 1)
    np.savez(tmp_path / "two.npz", user=inputs["user"].numpy(), image=(inputs["image"] * scale + shift).numpy())
    lines = run(tmp_path, tmp_path / "two.npz").splitlines()
    got = np.array([[float(value) for value in line.split(": ")[1].split()] for line in lines])
    np.testing.assert_allclose(got, network(**inputs).detach().numpy(), rtol=1e-4)
    np.savez(tmp_path / "one.npz", user=inputs["user"].numpy())
    assert "['image'] were not given" in run(tmp_path, tmp_path / "one.npz", code=1)


def test_a_large_sample_lies_beside(tmp_path):
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(3 * 128 * 128, 2)), torch.randn(2, 3, 128, 128)
    export_onnx(network, x, tmp_path / "model.onnx")
    write_inference(tmp_path, "model.onnx", x)
    assert (tmp_path / "sample.npz").stat().st_size > LARGEST_INSIDE
    assert (tmp_path / "infer.py").stat().st_size < 20_000
    assert "ok" in run(tmp_path)


def test_class_names_of_any_letters(tmp_path):
    network, x = nn.Linear(4, 2), torch.zeros(2, 4)
    export_onnx(network, x, tmp_path / "model.onnx")
    classes = ["\"quoted\" '''and''' \\n", "größer\n"]
    write_inference(tmp_path, "model.onnx", x, classes=classes)
    code = f"assert infer.SETTINGS['classes'] == {classes!r}; print('fine')"
    assert in_a_fresh_process(tmp_path, code) == ["fine"]


def test_refusals():
    images = torch.zeros(2, 3, 4, 4)
    for mean, std in (([0.5], None), (None, [0.5]), ([0.5] * 3, [0.5])):
        with refused("mean and std expected as many numbers each"):
            check_normalization(images, mean, std)
    for mean, std in (([0.5], [0.0]), ([0.5], [-1.0]), ([float("nan")], [1.0])):
        with refused("mean and std expected finite numbers, std above 0"):
            check_normalization(images, mean, std)
    with refused("one number per channel", "2 for one of shape [2, 3, 4, 4]"):
        check_normalization(images, [0.5] * 2, [0.5] * 2)
    with refused("one number per channel", "none in float"):
        check_normalization(torch.zeros(2, 3, dtype=torch.long), [0.5], [0.5])
    assert check_normalization(images, None, None) is None

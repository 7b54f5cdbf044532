"""The script runs where only numpy and onnxruntime are, checks itself, and predicts what torch does."""

import ast
import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from damage import damaged_bytes
from refusals import refused
from torch import nn

from lit_xai.export import infer_template
from lit_xai.export.inference import LARGEST_INSIDE, check_normalization, write_inference
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.openvino import precisions

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


@pytest.mark.parametrize(("runtime", "other"), [("onnxruntime", "openvino"), ("openvino", "onnxruntime")])
def test_either_runtime_alone_does(runtime, other, exported):
    code = f"""
sys.modules[{other!r}] = None  # as if it were not installed
for model in ("model.onnx", "model.int8.onnx"):
    assert infer.check(infer.load(model), model)
assert {runtime!r} in sys.modules
assert sys.modules.get("openvino_telemetry") is None
try:
    infer.load(runtime={other!r})
except SystemExit as error:
    print(str(error).replace(" ", "_"))
"""
    said = in_a_fresh_process(exported.folder, code)[-1].replace("_", " ")
    assert said == f"--runtime {other} needs {other}, which is not installed: pip install {other}"


def test_without_any_runtime(exported):
    code = """
sys.modules["onnxruntime"] = sys.modules["openvino"] = None
try:
    infer.load()
except SystemExit as error:
    print(str(error).replace(" ", "_"))
"""
    said = in_a_fresh_process(exported.folder, code)[-1].replace("_", " ")
    assert said == "infer.py needs onnxruntime or openvino: pip install onnxruntime"


def test_both_runtimes_predict_alike(exported, trained):
    raw = (trained.images[:64] * STD[0] + MEAN[0]).numpy()
    code = """
import numpy as np
raw = np.load(sys.argv[1])
for name in infer.RUNTIMES:
    np.save(f"{sys.argv[1]}.{name}.npy", infer.predict(infer.load(runtime=name, threads=1), {"input": raw}))
"""
    np.save(exported.folder.parent / "raw.npy", raw)
    program = f"import sys; sys.path.insert(0, {str(exported.folder)!r}); import infer\n{code}"
    command = [sys.executable, "-I", "-B", "-c", program, str(exported.folder.parent / "raw.npy")]
    subprocess.run(command, check=True, timeout=120)
    found = [np.load(exported.folder.parent / f"raw.npy.{name}.npy") for name in infer_template.RUNTIMES]
    expected = trained.quantized(trained.images[:64]).argmax(1).numpy()
    for outputs in found:
        assert (outputs.argmax(1) == expected).mean() > 0.98


@pytest.mark.skipif("bf16" not in precisions(), reason="this CPU has no bfloat16")
def test_bfloat16_where_asked_for(exported):
    said = run(exported.folder, "--model", "model.onnx", "--runtime", "openvino", "--precision", "bf16")
    assert "ok: differs by" in said
    assert "up to 0.05" in said


def test_options_of_the_runtime_are_checked(exported):
    for arguments, said in (
        (
            ["--runtime", "openvno"],
            "--runtime expected onnxruntime or openvino, but got openvno. Did you mean openvino?",
        ),
        (["--runtime"], "--runtime expected the name of a runtime."),
        (["--precision", "f16"], "--precision expected f32, or bf16 with --runtime openvino, but got f16."),
        (["--precision", "bf16"], "--precision expected f32, or bf16 with --runtime openvino, but got bf16."),
    ):
        assert run(exported.folder, *arguments, code=1) == f"{said}\n"


def test_openvino_refuses_in_one_sentence_too(exported, tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((2, 1, 8, 9), np.float32))
    said = run(exported.folder, "--runtime", "openvino", tmp_path / "wide.npy", code=1)
    assert said.startswith("The network expected samples with input of [1, 8, 8], but got input of [1, 8, 9]: ")
    (tmp_path / "broken.onnx").write_bytes(b"garbage")
    broken = run(exported.folder, "--runtime", "openvino", "--model", tmp_path / "broken.onnx", code=1)
    assert broken.startswith(f"{tmp_path / 'broken.onnx'} is no ONNX file that can be read: ")
    for sentence in (said, broken):
        assert sentence.count("\n") == 1
        assert "src/" not in sentence


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
    raw = (trained.images[:rows] * STD[0] + MEAN[0]).numpy()
    settings = {
        "inputs": {"input": {"shape": [1, 8, 8], "dtype": "float32"}},
        "whole": [],
        "normalized": "input",
        "mean": MEAN,
        "std": STD,
        "not_of_bytes": {},
    }
    found = infer_template.preprocess(form(raw), "input", settings)
    assert found.dtype == np.float32
    assert found.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(found, trained.images[:rows].numpy(), atol=0.006)  # half of 1 / 255, normalized


def test_the_other_files(exported, tmp_path):
    assert "ok" in run(exported.folder, "--model", exported.folder / "model.onnx")
    # Beside the script, and compared with what that file gave: it need not give what the one in integers does.
    said = run(exported.folder, "--model", "model.onnx")
    assert said.startswith("model.onnx, with one sample")
    assert "up to 0.001" in said
    assert "there is no file nothing.onnx" in run(exported.folder, "--model", "nothing.onnx", code=1)
    other = tmp_path / "other.onnx"
    other.write_bytes((exported.folder / "model.onnx").read_bytes())
    said = run(exported.folder, "--model", other, code=1)
    assert "infer.py can check model.int8.onnx and model.onnx, but has no output to compare other.onnx with." in said


def test_a_machine_that_computes_otherwise_is_told(exported, trained, tmp_path):
    for name in ("infer.py", "model.int8.onnx"):
        (tmp_path / name).write_bytes((exported.folder / name).read_bytes())
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    export_onnx(wrong, trained.images[:2], tmp_path / "model.int8.onnx")
    assert "model.int8.onnx is not the file that was exported with this infer.py" in run(tmp_path, code=1)
    hashes = [hashlib.sha256((f / "model.int8.onnx").read_bytes()).hexdigest() for f in (exported.folder, tmp_path)]
    script = (tmp_path / "infer.py").read_text()
    (tmp_path / "infer.py").write_text(script.replace(*hashes))  # as if the same file computed something else
    assert "WRONG: differs by" in run(tmp_path, code=1)


def said_by(folder, *calls):
    """What the script says in one process, for each list of arguments: a sentence, or what it prints."""
    code = (
        "import contextlib, io\n"
        f"for call in {[list(map(str, call)) for call in calls]!r}:\n"
        "    out = io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out): infer.main(call)\n"
        "        print(repr(out.getvalue()))\n"
        "    except SystemExit as end: print(repr(str(end)))\n"
    )
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); import infer\n{code}"
    done = subprocess.run([sys.executable, "-I", "-B", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


def test_usage_errors_are_one_sentence(exported, tmp_path):
    shape = (1, 1, 8, 8)
    for name, array in (
        ("wrong", np.zeros((3, 5))),
        ("empty", np.zeros((0, 1, 8, 8))),
        ("channels", np.zeros((1, 2, 8, 8))),
        ("nan", np.where(np.arange(64) < 3, np.nan, 0).reshape(shape)),
        ("large", np.full(shape, 1e300)),
        ("names", np.full(shape, "a")),
        ("complex", np.zeros(shape, complex)),
    ):
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "objects.npy", np.full(shape, None))
    np.savez(tmp_path / "unnamed.npz", np.zeros(shape))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "nan.npy").read_bytes()[:200])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "unnamed.npz").read_bytes()[:200])
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "broken.onnx").write_text("no network")
    cases = {
        "wrong.npy": "input expected one or more samples of shape [1, 8, 8], but got an array of [3, 5].",
        "empty.npy": "input expected one or more samples of shape [1, 8, 8], but got an array of [0, 1, 8, 8].",
        "channels.npy": "The network expected samples with input of [1, 8, 8], but got input of [2, 8, 8]: ",
        "nan.npy": "input expected finite numbers, but got NaN or infinity in 3 of 64.",
        "large.npy": "input expected numbers that float32 can hold, but got larger ones.",
        "names.npy": "input expected numbers of float32, but got an array of <U1.",
        "complex.npy": "input expected numbers of float32, but got an array of complex128.",
        "objects.npy": "{} expected a .npy or .npz file of numbers, but it holds Python objects, not numbers.",
        "unnamed.npz": "The network takes inputs ['input'], but ['input'] were not given, only ['arr_0'].",
        "cut.npy": "{} expected a .npy or .npz file of numbers, but it cannot be read: ",
        "cut.npz": "{} expected a .npy or .npz file of numbers, but it cannot be read: ",
        "text.npy": "{} expected a .npy or .npz file, or a picture, but it cannot be read as one.",
        "missing.npy": "There is no file {}.",
    }
    calls = [
        *([tmp_path / name] for name in cases),
        ["--model"],
        ["--model", tmp_path / "broken.onnx"],
        ["a", "--help"],
    ]
    *found, model, broken, help_ = said_by(exported.folder, *calls)
    for said, (name, expected) in zip(found, cases.items(), strict=True):
        assert said.startswith(expected.format(tmp_path / name)), said
    for said in (*found, model, broken):
        assert said.endswith(".")
        assert not said.endswith("..")
        assert "\n" not in said
    assert model == "--model expected the name of a file."
    assert broken.startswith(f"{tmp_path / 'broken.onnx'} is no ONNX file that can be read: ")
    assert "image.npy" in help_
    (tmp_path / "infer.py").write_text((exported.folder / "infer.py").read_text())
    assert "keep infer.py in the folder of the network" in said_by(tmp_path, [])[0]


def test_pictures_are_read_where_pillow_is(exported, trained, tmp_path):
    from PIL import Image

    grey = Image.fromarray(np.round((trained.images[0, 0] * STD[0] + MEAN[0]).numpy() * 255).astype(np.uint8))
    np.save(tmp_path / "bytes.npy", np.asarray(grey))
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "color.png")
    grey.resize((64, 32), Image.Resampling.NEAREST).save(tmp_path / "large.jpg")
    names = ("bytes.npy", "grey.png", "color.png", "large.jpg")
    array, same, color, large = said_by(exported.folder, *([tmp_path / name] for name in names))
    shares = array.split(": ")[1]
    assert same == f"{tmp_path / 'grey.png'}: {shares}"
    assert color == f"{tmp_path / 'color.png'}: {shares}"
    assert large.startswith(f"{tmp_path / 'large.jpg'}: resized from 64x32 to 8x8\n")
    assert large.count("the digit") == 3
    code = (
        f"sys.modules['PIL'] = None\ntry: infer.read({str(tmp_path / 'grey.png')!r})\nexcept SystemExit as e: print(e)"
    )
    said = " ".join(in_a_fresh_process(exported.folder, code))
    assert said.endswith("file of numbers, which it is not: for pictures, pip install pillow.")


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
    write_inference(tmp_path, {"model.onnx": 1e-3}, inputs, mean=mean, std=std, classification=False)
    assert "ok" in run(tmp_path)
    scale, shift = torch.tensor(std).view(2, 1, 1), torch.tensor(mean).view(2, 1, 1)
    np.savez(tmp_path / "two.npz", user=inputs["user"].numpy(), image=(inputs["image"] * scale + shift).numpy())
    lines = run(tmp_path, tmp_path / "two.npz").splitlines()
    got = np.array([[float(value) for value in line.split(": ")[1].split()] for line in lines])
    np.testing.assert_allclose(got, network(**inputs).detach().numpy(), rtol=1e-4)
    arrays = {"user": inputs["user"].numpy(), "image": inputs["image"].numpy()}
    np.savez(tmp_path / "one.npz", user=arrays["user"])
    np.savez(tmp_path / "whole.npz", **{**arrays, "user": arrays["user"].astype(float)})
    np.savez(tmp_path / "parts.npz", **{**arrays, "user": arrays["user"] + 0.5})
    (tmp_path / "text.txt").write_text("no array")
    files = ("one.npz", "whole.npz", "parts.npz", "text.txt")
    one, whole, parts, text = said_by(tmp_path, *([tmp_path / name] for name in files))
    assert one == "The network takes inputs ['user', 'image'], but ['image'] were not given, only ['user']."
    assert len(whole.splitlines()) == 2
    assert parts == "user expected whole numbers that int64 can hold, but got others of float64."
    assert text.endswith("text.txt expected a .npy or .npz file of numbers, which it is not.")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.8, 2.0), (0.0, 255.0)])
def test_bytes_are_refused_where_nobody_said_what_they_become(low, high, tmp_path):
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), torch.linspace(low, high, 32).view(2, 1, 4, 4)
    export_onnx(network, x, tmp_path / "model.onnx")
    write_inference(tmp_path, {"model.onnx": 1e-3}, x)
    np.save(tmp_path / "bytes.npy", np.zeros((1, 4, 4), np.uint8))
    np.save(tmp_path / "float.npy", x.numpy())
    assert len(run(tmp_path, tmp_path / "float.npy").splitlines()) == 2
    is_unit = high == 1.0
    said = run(tmp_path, tmp_path / "bytes.npy", code=0 if is_unit else 1)
    asked = f"input expected numbers as in training, {low:.3g} to {high:.3g}, but got bytes"
    assert (asked in said and "mean and std" in said) is not is_unit


def test_a_large_sample_lies_beside(tmp_path):
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(3 * 128 * 128, 2)), torch.randn(2, 3, 128, 128)
    export_onnx(network, x, tmp_path / "model.onnx")
    write_inference(tmp_path, {"model.onnx": 1e-3}, x)
    assert (tmp_path / "sample.npz").stat().st_size > LARGEST_INSIDE
    assert (tmp_path / "infer.py").stat().st_size < 30_000
    assert "ok" in run(tmp_path)


def test_class_names_of_any_letters(tmp_path):
    network, x = nn.Linear(4, 2), torch.zeros(2, 4)
    export_onnx(network, x, tmp_path / "model.onnx")
    classes = ["\"quoted\" '''and''' \\n", "größer\n"]
    write_inference(tmp_path, {"model.onnx": 1e-3}, x, classes=classes)
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
    with refused("mean and std expected an input in float, but got none"):
        check_normalization(torch.zeros(2, 3, dtype=torch.long), [0.5], [0.5])
    assert check_normalization(images, None, None) is None


def test_a_damaged_file_never_gives_an_answer(exported, tmp_path, monkeypatch):
    whole = (exported.folder / "model.int8.onnx").read_bytes()
    settings = {"model": "model.int8.onnx", "sha256": {"model.int8.onnx": hashlib.sha256(whole).hexdigest()}}
    monkeypatch.setattr(infer_template, "SETTINGS", settings)
    monkeypatch.setattr(infer_template, "FOLDER", tmp_path)
    for label, content in itertools.islice(damaged_bytes(whole, seed=14), 150):
        (tmp_path / "model.int8.onnx").write_bytes(content)
        if content != whole:
            with pytest.raises(SystemExit, match=r"model\.int8\.onnx is not the file that was exported with this"):
                pytest.fail(f"{label}: {infer_template.load()}")

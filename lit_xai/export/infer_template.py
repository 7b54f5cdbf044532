"""Predict with an exported network: needs onnxruntime and numpy, and the other files of this folder.

    python infer.py                    checks that this machine computes what the exporting machine did
    python infer.py image.npy ...      predicts from arrays, each of one sample or of several
    python infer.py photo.png ...      predicts from pictures, where the network takes these and Pillow is installed
    python infer.py inputs.npz         predicts from arrays by name, where the network takes several inputs
    python infer.py --model FILE ...   uses another of the files

Arrays of bytes and pictures are divided by 255, and refused where the network was not trained with that; then they are
normalized with the mean and standard deviation of the training data, if it was trained that way. From Python:
``predict(load(), {"input": array})``.
"""

import base64
import io
import os
import sys
from pathlib import Path
from typing import Any

# From release 1.32 on, ONNX Runtime contacts a host of its makers unless this is set before it is imported.
if "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ:
    print("onnxruntime was imported before infer.py could switch off its telemetry.", file=sys.stderr)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    import numpy as np
    import onnxruntime
except ImportError as error:
    raise SystemExit(f"infer.py needs onnxruntime and numpy ({error}): pip install onnxruntime numpy") from None

SETTINGS: dict[str, Any] = {}

SAMPLE = ""  # one sample before preprocessing, and each file's output for it; a large one is in sample.npz instead

FOLDER = Path(__file__).resolve().parent

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of pictures, by the number of channels


def load(model: str | Path | None = None) -> onnxruntime.InferenceSession:
    """Open a network; by default the int8 one, if there is one."""
    path = FOLDER / (model or SETTINGS["model"])
    if not path.is_file():
        raise SystemExit(f"There is no file {path}: keep infer.py in the folder of the network.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it prints each error that it also raises
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SystemExit(f"{path} is no ONNX file that can be read: {_line(error)}.") from None


def preprocess(array: Any, name: str, settings: dict[str, Any] | None = None) -> Any:
    """Return an input as the network takes it: with a dimension of samples, channels first, normalized."""
    settings = settings or SETTINGS
    shape, dtype = settings["inputs"][name]["shape"], np.dtype(settings["inputs"][name]["dtype"])
    array = with_samples(np.asarray(array), shape, name)
    if array.dtype.kind not in "biuf":
        raise SystemExit(f"{name} expected numbers of {dtype}, but got an array of {array.dtype}.")
    if not np.isfinite(array).all():
        raise SystemExit(f"{name} expected finite numbers, but got NaN or infinity in {_count(~np.isfinite(array))}.")
    if not np.issubdtype(dtype, np.floating):
        with np.errstate(invalid="ignore"):
            whole = array.astype(dtype)
        if not np.array_equal(whole, array):
            raise SystemExit(f"{name} expected whole numbers that {dtype} can hold, but got others of {array.dtype}.")
        return np.ascontiguousarray(whole)
    if array.dtype == np.uint8 and name in settings["not_of_bytes"]:
        raise SystemExit(
            f"{name} expected numbers as in training, {settings['not_of_bytes'][name]}, but got bytes, and how these"
            " become such numbers is unknown: give them in float, or export again with mean and std."
        )
    with np.errstate(over="ignore"):  # refused below
        array = array.astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)
    if not np.isfinite(array).all():
        raise SystemExit(f"{name} expected numbers that float32 can hold, but got larger ones.")
    if name == settings["normalized"]:
        per_channel = (1, -1) + (1,) * (array.ndim - 2)
        mean, std = (np.asarray(settings[key], np.float32).reshape(per_channel) for key in ("mean", "std"))
        array = (array - mean) / std
    return np.ascontiguousarray(array, dtype)


def with_samples(array: Any, shape: list[int], name: str) -> Any:
    """Return an array whose first dimension counts samples; ``shape`` is that of one of them."""
    channels_last = (*shape[1:], shape[0]) if len(shape) > 1 else None
    for expected in (tuple(shape), channels_last, tuple(shape[1:]) if shape[:1] == [1] else None):
        if expected is None:
            continue
        rows = array[None] if array.shape == expected else array
        if rows.shape[1:] != expected or rows.ndim != len(expected) + 1 or not len(rows):
            continue
        if len(expected) < len(shape):
            return rows[:, None]
        return rows if expected == tuple(shape) else np.moveaxis(rows, -1, 1)
    if array.ndim == len(shape) + 1 and array.size:  # the network may take other sizes too
        return array
    raise SystemExit(f"{name} expected one or more samples of shape {shape}, but got an array of {[*array.shape]}.")


def predict(session: Any, arrays: dict[str, Any]) -> Any:
    """Return the network's outputs for arrays by the names of the inputs."""
    missing = [name for name in SETTINGS["inputs"] if name not in arrays]
    if missing:
        raise SystemExit(
            f"The network takes inputs {[*SETTINGS['inputs']]}, but {missing} were not given, only {[*arrays]}."
        )
    ready = {name: preprocess(arrays[name], name) for name in SETTINGS["inputs"]}
    try:
        return session.run(None, ready)[0]
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        given = ", ".join(f"{name} of {[*array.shape[1:]]}" for name, array in ready.items())
        wanted = ", ".join(f"{name} of {SETTINGS['inputs'][name]['shape']}" for name in ready)
        raise SystemExit(f"The network expected samples with {wanted}, but got {given}: {_line(error)}.") from None


def describe(outputs: Any) -> str:
    """Return the outputs for one sample in words, on one line."""
    if not SETTINGS["classification"] or outputs.ndim != 1:
        return " ".join(f"{value:.6g}" for value in outputs.ravel()[:20])
    # A softmax; less the maximum, so that exp() cannot overflow.
    shares = np.exp(outputs - outputs.max())
    shares = shares / shares.sum()
    names = SETTINGS["classes"] or range(len(outputs))
    return ", ".join(f"{names[i]} {shares[i]:.3f}" for i in np.argsort(-shares)[:3])


def read(path: str) -> dict[str, Any]:
    """Return a file's arrays by the names of the inputs."""
    if not Path(path).is_file():
        raise SystemExit(f"There is no file {path}.")
    try:
        begins = Path(path).read_bytes()[:6]
        if begins != b"\x93NUMPY" and begins[:4] != b"PK\x03\x04":
            return {next(iter(SETTINGS["inputs"])): picture(path)}
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {next(iter(SETTINGS["inputs"])): found}
        return {name: found[name] for name in found.files}
    except Exception as error:  # a damaged archive raises exceptions of many types
        pickled = "allow_pickle" in str(error)
        why = "it holds Python objects, not numbers" if pickled else f"it cannot be read: {_line(error)}"
        raise SystemExit(f"{path} expected a .npy or .npz file of numbers, but {why}.") from None


def picture(path: str) -> Any:
    """Return a picture's bytes, ``(height, width, channels)`` of the size that the network was trained with."""
    shapes = [entry["shape"] for entry in SETTINGS["inputs"].values()]
    if len(shapes) > 1 or len(shapes[0]) != 3 or shapes[0][0] not in MODES:
        raise SystemExit(f"{path} expected a .npy or .npz file of numbers, which it is not.")
    channels, height, width = shapes[0]
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise SystemExit(
            f"{path} expected a .npy or .npz file of numbers, which it is not: for pictures, pip install pillow."
        ) from None
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert(MODES[channels])
    except OSError:  # of other kinds of files and of damaged pictures
        raise SystemExit(f"{path} expected a .npy or .npz file, or a picture, but it cannot be read as one.") from None
    if image.size != (width, height):
        print(f"{path}: resized from {image.width}x{image.height} to {width}x{height}", file=sys.stderr)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels)


def sample() -> dict[str, Any]:
    """Return one sample's inputs by name, and under ``expected/FILE`` the output of each file for it."""
    if not SAMPLE and not (FOLDER / "sample.npz").is_file():
        raise SystemExit(f"There is no file {FOLDER / 'sample.npz'}: keep infer.py in its folder.")
    source = io.BytesIO(base64.b64decode(SAMPLE)) if SAMPLE else FOLDER / "sample.npz"
    found = np.load(source, allow_pickle=False)
    return {name: found[name] for name in found.files}


def check(session: Any, model: str | Path | None = None) -> bool:
    """Compare a network's output for the sample with its file's output when it was exported."""
    name = Path(model or SETTINGS["model"]).name
    if name not in SETTINGS["tolerances"]:
        known = " and ".join(SETTINGS["tolerances"])
        raise SystemExit(f"infer.py can check {known}, but has no output to compare {name} with.")
    arrays, tolerance = sample(), SETTINGS["tolerances"][name]
    expected = arrays[f"expected/{name}"]
    got = predict(session, arrays)
    difference = float("inf")
    if got.shape == expected.shape:
        difference = float(np.abs(got - expected).max() / (np.abs(expected).max() or 1.0))
    passed = difference <= tolerance
    print(f"{name}, with one sample from the export")
    print(f"expected  {describe(expected[0])}")
    print(f"got       {describe(got[0])}")
    print(f"{'ok' if passed else 'WRONG'}: differs by {difference:.2g} of the largest output, up to {tolerance:g}")
    return passed


def _count(which: Any) -> str:
    return f"{int(which.sum())} of {which.size}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def main(arguments: list[str]) -> int:
    """Check, or predict for each file."""
    if {"-h", "--help"} & {*arguments}:
        print(__doc__)
        return 0
    model = None
    if arguments[:1] == ["--model"]:
        if len(arguments) < 2:
            raise SystemExit("--model expected the name of a file.")
        named, arguments = arguments[1], arguments[2:]
        model = next((path for path in (Path(named).resolve(), FOLDER / named) if path.is_file()), None)
        if model is None:
            raise SystemExit(f"--model expected an ONNX file, but there is no file {named}.")
    session = load(model)
    if not arguments:
        return 0 if check(session, model) else 1
    for path in arguments:
        for outputs in predict(session, read(path)):
            print(f"{path}: {describe(outputs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Predict with an exported network: needs onnxruntime and numpy, and the files that lie beside this one.

    python infer.py                    checks that this machine computes what the one did that exported the network
    python infer.py image.npy ...      predicts, one array per file, of one sample or of several
    python infer.py inputs.npz         likewise, where the network takes several inputs: arrays by their names
    python infer.py --model FILE ...   with another of the files

Arrays of bytes are divided by 255; then the mean is subtracted and the result divided by the standard deviation, where
the network was trained that way. From Python: ``predict(load(), {"input": array})``.
"""

import base64
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

SETTINGS: dict[str, Any] = {}

SAMPLE = ""  # what one sample looks like before preprocessing, and what the network gives for it; else in sample.npz

FOLDER = Path(__file__).resolve().parent


def load(model: str | Path | None = None) -> onnxruntime.InferenceSession:
    """Open a network; by default the one that the sample's outputs are of."""
    path = FOLDER / (model or SETTINGS["model"])
    if not path.is_file():
        raise SystemExit(f"There is no file {path}: keep infer.py beside the network.")
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SystemExit(f"{path} is no ONNX file that can be read: {' '.join(str(error).split())[:200]}") from None


def preprocess(array: Any, name: str, settings: dict[str, Any] | None = None) -> Any:
    """Return an input as the network takes it: with a dimension of samples, channels first, normalised."""
    settings = settings or SETTINGS
    shape, dtype = settings["inputs"][name]["shape"], np.dtype(settings["inputs"][name]["dtype"])
    array = with_samples(np.asarray(array), shape, name)
    if not np.issubdtype(dtype, np.floating):
        return np.ascontiguousarray(array, dtype)
    array = array.astype(np.float32) / np.float32(255) if array.dtype == np.uint8 else array.astype(np.float32)
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
        if rows.shape[1:] != expected or rows.ndim != len(expected) + 1:
            continue
        if len(expected) < len(shape):
            return rows[:, None]
        return rows if expected == tuple(shape) else np.moveaxis(rows, -1, 1)
    if array.ndim == len(shape) + 1:  # of another size: the network may take it
        return array
    raise SystemExit(f"{name} expected one or more samples of shape {shape}, but got an array of {[*array.shape]}.")


def predict(session: Any, arrays: dict[str, Any]) -> Any:
    """Return the network's outputs for arrays by the names of the inputs."""
    missing = [name for name in SETTINGS["inputs"] if name not in arrays]
    if missing:
        raise SystemExit(f"The network takes inputs {[*SETTINGS['inputs']]}, but {missing} were not given.")
    return session.run(None, {name: preprocess(arrays[name], name) for name in SETTINGS["inputs"]})[0]


def describe(outputs: Any) -> str:
    """Say in one line what the outputs for one sample mean."""
    if not SETTINGS["classification"] or outputs.ndim != 1:
        return " ".join(f"{value:.6g}" for value in outputs.ravel()[:20])
    shares = np.exp(outputs - outputs.max())
    shares = shares / shares.sum()
    names = SETTINGS["classes"] or range(len(outputs))
    return ", ".join(f"{names[i]} {shares[i]:.3f}" for i in np.argsort(-shares)[:3])


def read(path: str) -> dict[str, Any]:
    """Return arrays by the names of the inputs."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SystemExit(f"{path} expected a .npy or .npz file of numbers, but it cannot be read: {error}.") from None
    if isinstance(found, np.ndarray):
        return {next(iter(SETTINGS["inputs"])): found}
    return {name: found[name] for name in found.files}


def sample() -> dict[str, Any]:
    """Return one sample's inputs by name, and under ``expected`` what the network gives for it."""
    source = io.BytesIO(base64.b64decode(SAMPLE)) if SAMPLE else FOLDER / "sample.npz"
    found = np.load(source, allow_pickle=False)
    return {name: found[name] for name in found.files}


def check(session: Any) -> bool:
    """Compare what the network gives for the sample with what it gave when it was exported."""
    arrays = sample()
    expected = arrays.pop("expected")
    got = predict(session, arrays)
    apart = float(np.abs(got - expected).max() / (np.abs(expected).max() or 1.0))
    fine = got.shape == expected.shape and apart <= SETTINGS["tolerance"]
    print(f"expected  {describe(expected[0])}")
    print(f"got       {describe(got[0])}")
    print(f"{'ok' if fine else 'WRONG'}: differs by {apart:.2g} of the largest output, up to {SETTINGS['tolerance']:g}")
    return fine


def main(arguments: list[str]) -> int:
    """Check, or predict for each file."""
    model = None
    if arguments[:1] == ["--model"]:
        if len(arguments) < 2:
            raise SystemExit("--model expected the name of a file.")
        model, arguments = Path(arguments[1]).resolve(), arguments[2:]
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    session = load(model)
    if not arguments:
        return 0 if check(session) else 1
    for path in arguments:
        for outputs in predict(session, read(path)):
            print(f"{path}: {describe(outputs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

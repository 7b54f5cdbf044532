"""The script that predicts without this library, filled in from a template for one network."""

import base64
import hashlib
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_xai.network.calling import Inputs
from lit_xai.network.profiling import with_batch_size
from lit_xai.runtime.flat import named_tensors

LARGEST_INSIDE = 64_000
"""The largest sample, in bytes, that is written into the script; a larger one gets a file of its own."""

_TEMPLATE = Path(__file__).with_name("infer_template.py")


def write_inference(
    folder: Path,
    tolerances: Mapping[str, float],
    inputs: Inputs,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    classification: bool = True,
    sizes: Mapping[str, list[int | None]] | None = None,
) -> None:
    """Write ``infer.py`` next to ONNX files, with one sample and each file's output for it.

    The sample is stored as it is before normalization, so that a check runs every step of a prediction.

    Args:
        folder: the folder of the files.
        tolerances: the largest difference that a check accepts, relative to the largest output, by the files' names;
            the script runs the first of them by default.
        inputs: what the network is called with, normalized; the first sample is taken.
        mean: of each channel of the first input in float, for values from 0 to 1; ``None`` where it is not normalized.
        std: the standard deviation of each channel.
        classes: names of the outputs.
        classification: whether outputs are scores of classes.
        sizes: where inputs hold no row for each sample, the shapes that the files take, ``None`` for any size.

    Raises:
        ValueError: see :func:`check_normalization`.
    """
    from lit_xai.export import infer_template

    tensors = named_tensors(with_batch_size(inputs, 1) if sizes is None else inputs)
    # A tensor without dimensions holds one number for all samples.
    whole = [name for name, tensor in tensors.items() if sizes is not None or not tensor.dim()]
    shapes = {name: [*t.shape] if name in whole else [*t.shape[1:]] for name, t in tensors.items()} | {**(sizes or {})}
    settings: dict[str, Any] = {
        "model": next(iter(tolerances)),
        "inputs": {name: {"shape": shapes[name], "dtype": str(t.numpy().dtype)} for name, t in tensors.items()},
        "whole": whole,
        "normalized": check_normalization(inputs, mean, std),
        "mean": None if mean is None else [float(value) for value in mean],
        "std": None if std is None else [float(value) for value in std],
        "classes": None if classes is None else [str(name) for name in classes],
        "classification": classification,
        "tolerances": {name: float(f"{tolerance:.2g}") for name, tolerance in tolerances.items()},
    }
    raw = {name: _raw(tensor, name, settings) for name, tensor in tensors.items()}
    settings["ranges"] = {name: _normalized_range(tensor, name, settings) for name, tensor in _floats(inputs).items()}
    settings["not_of_bytes"] = {name: span for name in raw if (span := _range_of(inputs, name, settings))}
    # By the script's own functions, so that the expected outputs are those that the script computes.
    arrays = {name: infer_template.preprocess(array, name, settings) for name, array in raw.items()}
    expected = {f"expected/{name}": infer_template.load(folder / name).run(None, arrays)[0] for name in tolerances}
    # One sample and its expected outputs in one archive, so that a check needs no other file.
    sample = _compressed({**raw, **expected})
    inside = len(sample) <= LARGEST_INSIDE
    if not inside:
        (folder / "sample.npz").write_bytes(sample)
    files = [*tolerances, *(() if inside else ("sample.npz",))]
    settings["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    (folder / "infer.py").write_text(_fill_template(settings, sample if inside else b""), encoding="utf-8")


def check_normalization(inputs: Inputs, mean: Sequence[float] | None, std: Sequence[float] | None) -> str | None:
    """Return the name of the input that is normalized, or ``None`` where none is.

    Raises:
        ValueError: only one of mean and std is given, their numbers do not fit each other or the input, or a standard
            deviation is not above 0.

    Example:
        >>> check_normalization(torch.zeros(2, 3, 8, 8), [0.5, 0.5, 0.5], [0.2, 0.2, 0.2])
        'input'
    """
    if mean is None and std is None:
        return None
    if mean is None or std is None or len(mean) != len(std):
        raise ValueError(f"mean and std expected as many numbers each, but got mean={mean!r} and std={std!r}.")
    if not all(np.isfinite([*mean, *std])) or min(std) <= 0:
        raise ValueError(f"mean and std expected finite numbers, std above 0, but got mean={mean!r} and std={std!r}.")
    floats = {name: tensor for name, tensor in named_tensors(inputs).items() if tensor.is_floating_point()}
    if not floats:
        raise ValueError("mean and std expected an input in float, but got none.")
    name, tensor = next(iter(floats.items()))
    if tensor.dim() < 2 or len(mean) not in (1, tensor.size(1)):
        raise ValueError(
            "mean and std expected one number per channel of the input, but got"
            f" {len(mean)} for one of shape {[*tensor.shape]}."
        )
    return name


def _raw(tensor: Tensor, name: str, settings: Mapping[str, Any]) -> Any:
    """Undo the normalization."""
    if name != settings["normalized"]:
        return tensor.numpy()
    shape = (1, -1) + (1,) * (tensor.dim() - 2)
    mean, std = (torch.tensor(settings[key]).view(shape) for key in ("mean", "std"))
    return (tensor * std + mean).numpy()


def _range_of(inputs: Inputs, name: str, settings: Mapping[str, Any]) -> str:
    """Return the range of an input's values where it exceeds 0 to 1, which bytes divided by 255 cannot.

    An empty string where it does not, or where mean and std are given and define how bytes are converted.
    """
    values = named_tensors(inputs)[name]
    if name == settings["normalized"] or not values.is_floating_point() or not values.numel():
        return ""
    low, high = float(values.min()), float(values.max())
    return f"{low:.3g} to {high:.3g}" if low < 0 or high > 1 else ""


def _floats(inputs: Inputs) -> dict[str, Tensor]:
    return {name: t for name, t in named_tensors(inputs).items() if t.is_floating_point() and t.numel()}


def _normalized_range(values: Tensor, name: str, settings: Mapping[str, Any]) -> list[float]:
    """Return the least and the largest number in an input, of those seen and of all that normalization allows."""
    low, high = float(values.min()), float(values.max())
    if name == settings["normalized"]:
        pairs = [*zip(settings["mean"], settings["std"], strict=True)]
        low = min(low, *((0 - mean) / std for mean, std in pairs))
        high = max(high, *((1 - mean) / std for mean, std in pairs))
    return [float(f"{low:.4g}"), float(f"{high:.4g}")]


def _compressed(arrays: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _fill_template(settings: Mapping[str, Any], sample: bytes) -> str:
    text = _TEMPLATE.read_text(encoding="utf-8")
    entries = "".join(f"    {name!r}: {value!r},\n" for name, value in settings.items())
    encoded = "\n".join(textwrap.wrap(base64.b64encode(sample).decode(), 116))
    for line, value in (
        ("SETTINGS: dict[str, Any] = {}", f"SETTINGS: dict[str, Any] = {{\n{entries}}}"),
        ('SAMPLE = ""', f'SAMPLE = """\n{encoded}\n"""' if sample else 'SAMPLE = ""'),
    ):
        # A reformatted template must not lead to a script without settings.
        assert text.count(f"\n{line}") == 1
        text = text.replace(line, value, 1)
    return text

"""What a report says of where its numbers come from: files, versions, machine, data and steps."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.report.record import Array
from lit_xai.runtime.latency import cpu_name

PACKAGES = ("lit-xai", "torch", "lightning", "captum", "torch-pruning", "onnxruntime", "onnx", "numpy", "scipy")


def environment() -> dict[str, str]:
    """Return the machine and the versions that numbers were made with.

    Example:
        >>> environment()["torch"] == torch.__version__
        True
    """
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": cpu_name(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # an extra, or a checkout
            continue
    return found


def identity(files: Mapping[str, Path]) -> dict[str, str]:
    """Return SHA-256 of files, the command line, and the state of the project's repository.

    Args:
        files: by name: the reference, the candidate, configurations.
    """
    found = {
        f"sha256 of {name}{'' if name == path.name else f' ({path.name})'}": sha256(path)
        for name, path in files.items()
    }
    found["command"] = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["git commit"] = (
            f"{commit}{' with changes that are not committed' if _git('status', '--porcelain') else ''}"
        )
    return found


def sha256(path: Path) -> str:
    """Return the checksum of a file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "empty")
        >>> path.touch()
        >>> sha256(path)[:8]
        'e3b0c442'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(module: torch.nn.Module) -> str:
    """Return the checksum of a module's weights and buffers, by their names.

    Example:
        >>> one, other = (torch.nn.Linear(2, 2) for _ in range(2))
        >>> _ = other.load_state_dict(one.state_dict())
        >>> weights_sha256(one) == weights_sha256(other)
        True
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def split_facts(
    name: str, hashes: Array, labels: Array | None = None, class_names: Sequence[str] = (), served: str = ""
) -> dict[str, Any]:
    """Return what one split of the data is.

    Args:
        name: of the split: ``"test"``.
        hashes: of each sample, by :func:`sample_hashes`; their sum does not depend on the order of the samples.
        labels: classes, if there are any.
        class_names: of the classes.
        served: the decisions that were taken on it.

    Example:
        >>> split_facts("test", np.array([3, 5, 5], dtype=np.uint64), np.array([0, 1, 1]))
        {'name': 'test', 'n': 3, 'hash': '000000000000000d', 'served': '', 'classes': {'0': 1, '1': 2}}
    """
    found: dict[str, Any] = {"name": name, "n": len(hashes), "hash": f"{int(hashes.sum(dtype=np.uint64)):016x}"}
    found["served"] = served
    if labels is not None and labels.dtype.kind in "iu":
        places, counts = np.unique(labels, return_counts=True)
        names = [class_names[place] if place < len(class_names) else str(place) for place in places.tolist()]
        found["classes"] = dict(zip(names, counts.tolist(), strict=True))
    return found


def sample_hashes(rows: Sequence[Sequence[torch.Tensor]]) -> Array:
    """Return a checksum of each sample, ``(N,)``.

    Args:
        rows: the tensors of each sample.

    Example:
        >>> one, other, again = sample_hashes([[torch.zeros(2)], [torch.ones(2)], [torch.zeros(2)]])
        >>> bool(one == again), bool(one == other)
        (True, False)
    """
    found = np.empty(len(rows), dtype=np.uint64)
    for place, tensors in enumerate(rows):
        digest = hashlib.blake2b(digest_size=8)
        for tensor in tensors:
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        found[place] = int.from_bytes(digest.digest(), "big")
    return found


def input_hashes(split: SplitInputs) -> Array:
    """Return a checksum of each sample of a batch, ``(N,)``, the same one however far a text was filled up.

    Args:
        split: the inputs of the batch; an ``attention_mask`` among them says what is no text.

    Example:
        >>> texts = [torch.tensor([[5, 6]]), torch.tensor([[5, 6, 0]])]
        >>> split = [SplitInputs({"ids": ids, "attention_mask": ids.sign()}, any_dtype=True) for ids in texts]
        >>> bool(input_hashes(split[0]) == input_hashes(split[1]))
        True
    """
    mask = next((place for place, name in enumerate(split.names) if "attention_mask" in name), None)

    def whole(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        if mask is None:
            return tensors
        is_text = tensors[mask] != 0
        return [tensor[is_text] if tensor.shape == is_text.shape else tensor for tensor in tensors]

    return sample_hashes([whole(split.rows(slice(row, row + 1))) for row in range(split.n)])


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=os.getcwd(), capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

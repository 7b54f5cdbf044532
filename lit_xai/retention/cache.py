"""What a reference's explanations are held against, kept between runs in a file under the hash of the reference.

The file holds numbers alone, one similarity for each sample and network. The reference itself is explained in every
run: its maps are part of the hash, so that numbers of other weights, samples, baselines or settings are never found.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_xai.network.saving import load_arrays, save_arrays
from lit_xai.retention.reference import ReferenceExplanations

VERSION = 1
"""Of the file, and of how untrained and rounded networks are made: raise it when either changes."""

_NAMES = ("version", "names", "similarity", "sha256")
_ROUNDING = 1e-6


def cache_folder(given: bool | str | Path, run_folder: Path, root: Path) -> Path | None:
    """Return the folder of the files; ``None`` for none.

    Args:
        given: whether there is one, or where.
        run_folder: of this run.
        root: of all runs; the same for a run that has no folder of its own.

    Example:
        >>> str(cache_folder(True, Path("runs/version_3"), Path("."))), cache_folder(False, Path("a"), Path("a"))
        ('runs/retention-cache', None)
    """
    if isinstance(given, bool):
        own = run_folder if run_folder.resolve() == root.resolve() else run_folder.parent
        return own / "retention-cache" if given else None
    return Path(given)


class ReferenceCache:
    """Keeps what was measured of references.

    Args:
        folder: of the files; ``None`` for none.
        warn: called with a file that is not used, in words.
    """

    def __init__(self, folder: Path | None, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn
        self._kept: dict[str, set[str]] = {}

    def load(self, own: ReferenceExplanations) -> None:
        """Fill in what an earlier run measured of the same reference."""
        path = self._path(own)
        if path is None or not path.exists():
            return
        try:
            kept = read_similarities(path, own.n)
            own.measured |= kept
            self._kept[own.hash] = set(kept)
        except ValueError as error:
            self._warn(f"what the reference is held against is measured anew. {error}")

    def save(self, own: ReferenceExplanations) -> None:
        """Write what is known of a reference."""
        path = self._path(own)
        if path is None or set(own.measured) == self._kept.get(own.hash, set()):
            return
        try:
            write_similarities(path, own.measured)
        except OSError as error:  # a full disk, or a folder of somebody else
            self._warn(f"what the reference is held against is not kept for further runs ({error})")

    def _path(self, own: ReferenceExplanations) -> Path | None:
        return None if self._folder is None else self._folder / f"{own.hash}.npz"


def write_similarities(path: Path, measured: dict[str, Tensor]) -> None:
    """Write the similarity of networks, whole or not at all.

    Args:
        path: of the file.
        measured: ``(N,)`` each, by name.

    Raises:
        OSError: it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a1b2.npz"
        >>> write_similarities(path, {"8 bits": torch.tensor([1.0, 0.5])})
        >>> read_similarities(path, 2)
        {'8 bits': tensor([1.0000, 0.5000], dtype=torch.float64)}
    """
    names = torch.tensor(list("\n".join(measured).encode()), dtype=torch.uint8)
    rows = torch.stack([row.double().cpu() for row in measured.values()])
    digest = torch.tensor(list(_digest(names.numpy(), rows.numpy())), dtype=torch.uint8)
    arrays = {"version": torch.tensor(VERSION), "names": names, "similarity": rows, "sha256": digest}
    save_arrays(path, arrays, compress=False)


def read_similarities(path: Path, n: int) -> dict[str, Tensor]:
    """Return the similarity of networks, ``(n,)`` each, by name.

    Args:
        path: of the file.
        n: number of samples.

    Raises:
        ValueError: it is no such file, is damaged, or of another version.
    """
    arrays = load_arrays(path, _NAMES)
    rows = arrays["similarity"]
    is_whole = arrays["sha256"].tobytes() == _digest(arrays["names"], rows)
    names = arrays["names"].tobytes().decode(errors="replace").split("\n")
    is_sound = rows.dtype == np.float64 and rows.shape == (len(names), n) and bool((abs(rows) <= 1 + _ROUNDING).all())
    if not (is_whole and is_sound and arrays["version"].tolist() == VERSION and len(set(names)) == len(names)):
        raise ValueError(f"{path} expected similarities of {n} samples, but is damaged or of another version.")
    return {name: torch.from_numpy(row.copy()) for name, row in zip(names, rows, strict=True)}


def _digest(names: np.ndarray, rows: np.ndarray) -> bytes:
    return hashlib.sha256(f"{VERSION} {rows.shape}".encode() + names.tobytes() + rows.tobytes()).digest()

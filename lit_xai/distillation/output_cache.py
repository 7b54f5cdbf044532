"""A cache of a teacher's outputs by the content of the samples: an augmented sample is a miss, never a wrong hit."""

import functools
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_xai.distillation.output_file import HASH, locked, read_outputs, require_place, signature, write_outputs
from lit_xai.network.calling import Inputs, find_network
from lit_xai.network.describing import describe
from lit_xai.network.probing import fingerprint
from lit_xai.network.trees import Held, leaves

_HIGH = -(1 << 32)  # the upper half of 64 bits
_LOW = (1 << 32) - 1


def sample_keys(inputs: Inputs) -> Tensor:
    """Return a 64-bit hash of each sample's bits, on the inputs' device: equal samples have equal keys.

    Vector multiply-shift, two hashes of 32 bits side by side: a pair of samples shares a key by chance once in about
    2^62, whatever they look like. Thorup 2015, High Speed Hashing for Integers and Strings,
    https://arxiv.org/abs/1504.06804. It does not protect against samples built to collide. Memory layout and the rest
    of the batch do not matter; dtype, shape and the sign of zero do.

    Args:
        inputs: of the network. A tensor with as many rows as the first one has one row per sample; everything else
            (other tensors, and the ``repr`` of other values) belongs to every sample.

    Returns:
        int64 ``(N,)``.

    Raises:
        ValueError: the inputs hold no tensor with rows.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])
        >>> keys = sample_keys(x)
        >>> keys[0] == keys[2], keys[0] == keys[1]
        (tensor(True), tensor(False))
        >>> torch.equal(sample_keys(x[1:]), keys[1:])
        True
    """
    named = list(_arguments(inputs))
    rows = next((len(value) for _, value in named if isinstance(value, Tensor) and value.dim()), None)
    if rows is None:
        raise ValueError(f"sample_keys expected a tensor with one row per sample, but got {describe(inputs)}.")
    words, signature = [], []
    for name, value in named:
        if isinstance(value, Tensor):
            # A tensor with another number of rows belongs to every sample: one row, expanded.
            per_sample = value if value.dim() and len(value) == rows else value[None]
            words.append(_words(per_sample).expand(rows, -1))
            signature.append(f"{name} {value.dtype} {tuple(per_sample.shape[1:])}")
        else:
            signature.append(f"{name} {value!r}")
    # dtype and shape are no part of the words: zeros of any type have the same bits.
    digest = hashlib.sha256("\n".join(signature).encode()).digest()[:8]
    device = words[0].device
    together = words[0] if len(words) == 1 else torch.cat([part.to(device) for part in words], 1)
    return _multiply_shift(together) ^ int.from_bytes(digest, "big", signed=True)


def _arguments(inputs: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every argument with its position, tensors or not."""
    if isinstance(inputs, Held):
        yield from _arguments(inputs.value, name)
    elif isinstance(inputs, (Mapping, list, tuple)):
        yield name, type(inputs).__name__
        for key, value in inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs):
            yield from _arguments(value, f"{name}.{key!r}")
    elif is_dataclass(inputs):
        yield from _arguments({part.name: getattr(inputs, part.name) for part in fields(inputs)}, name)
    elif not isinstance(inputs, Tensor) and any(True for _ in leaves(inputs)):
        raise ValueError(
            f"sample_keys expected tensors with one row per sample, but got {describe(inputs)}: leave out the cache."
        )
    else:  # the repr of a long array omits most of it
        yield name, torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs


def _words(rows: Tensor) -> Tensor:
    """Return each row's bytes as int32 ``(N, words)``, the last word padded with zeros."""
    flat = rows.detach().resolve_conj().resolve_neg()[..., None].flatten(1).contiguous()
    if not flat.numel():
        return torch.zeros_like(flat, dtype=torch.int32)
    if flat.element_size() % 4 == 0:
        return flat.view(torch.int32)
    raw = flat.view(torch.uint8)
    missing = -raw.shape[1] % 4
    return (F.pad(raw, (0, missing)) if missing else raw.clone()).view(torch.int32)  # a clone is aligned


def _multiply_shift(words: Tensor) -> Tensor:
    first, second = (_dot(words, factors) for factors in _factors(words.shape[1], words.device))
    return (first & _HIGH) | ((second >> 32) & _LOW)  # sums wrap around; only their upper halves are good hashes


def _dot(words: Tensor, factors: Tensor) -> Tensor:
    # In chunks: the products take twice the memory of the words, and fresh pages cost a CPU more than the arithmetic.
    size = 512 if words.is_cpu else 65536
    total = words.new_zeros(len(words), dtype=torch.int64)
    for part, by in zip(words.split(size, 1), factors.split(size), strict=True):
        total += (part * by).sum(1)
    return total


@functools.lru_cache(maxsize=16)
def _factors(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    # NumPy guarantees the stream of a bit generator across versions, and using one leaves the global states alone.
    bits = np.random.PCG64(HASH).random_raw(2 * n).view(np.int64).reshape(n, 2)
    return torch.from_numpy(bits[:, 0].copy()).to(device), torch.from_numpy(bits[:, 1].copy()).to(device)


def module_hash(module: nn.Module) -> str:
    """Return a short hash of a network's parts and of the bits of its parameters and buffers, on any device.

    Args:
        module: the network; ``torch.compile``'s wrapper around it makes no difference.

    Example:
        >>> network = nn.Linear(2, 2)
        >>> before = module_hash(network)
        >>> with torch.no_grad():
        ...     _ = network.bias.add_(1)
        >>> len(before), before == module_hash(network)
        (16, False)
    """
    network = find_network(module)
    # The same weights with another activation are another network.
    parts = {f"{name}: {type(part).__qualname__}": torch.empty(0) for name, part in network.named_modules()}
    buffers = dict(network.named_buffers(remove_duplicate=False))  # non-persistent ones count as well
    state = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    return fingerprint(parts | dict(sorted((buffers | state).items())))


class OutputCache:
    """Outputs of one teacher by the keys of the samples, in memory and, with a path, in a file.

    Nothing is evicted: use it for a teacher that sees the same samples every epoch, not with random augmentation.

    Args:
        teacher: the :func:`module_hash` of the teacher.
        path: of an ``.npz`` file, read if it exists. Several processes may use one: each adds its outputs to it.

    Attributes:
        hits: number of samples in batches that were answered.
        misses: number of samples in batches that were not, because at least one was unknown.

    Raises:
        ValueError: the file holds the outputs of another teacher, is no such file or damaged, or can be neither read
            nor written.

    Example:
        >>> x = torch.randn(4, 2)
        >>> cache = OutputCache(module_hash(nn.Linear(2, 3)))
        >>> cache.lookup(sample_keys(x)) is None
        True
        >>> cache.add(sample_keys(x), torch.arange(12.0).reshape(4, 3))
        >>> cache.lookup(sample_keys(x.flip(0)[:2]))
        tensor([[ 9., 10., 11.],
                [ 6.,  7.,  8.]])
        >>> len(cache), cache.hits, cache.misses
        (4, 2, 4)
    """

    def __init__(self, teacher: str, path: Path | None = None) -> None:
        self.teacher = teacher
        self.path = path
        self.hits = 0
        self.misses = 0
        self._rows: dict[int, int] = {}
        self._values: Tensor | None = None
        self._saved = 0
        self._is_told = False
        self._signature: tuple[int, ...] | None = None
        if path is not None and path.exists():
            self._signature = signature(path)
            keys, self._values = read_outputs(path, teacher)
            self._rows = {key: row for row, key in enumerate(keys)}
            self._saved = len(self)
        elif path is not None:
            require_place(path)

    def __len__(self) -> int:
        return len(self._rows)

    def lookup(self, keys: Tensor) -> Tensor | None:
        """Return the outputs ``(N, ...)`` on the keys' device, ``None`` unless all are in the cache.

        Args:
            keys: of :func:`sample_keys`, ``(N,)``.
        """
        # A dict takes a tenth of the time of a binary search while new keys keep coming: nothing is sorted again.
        rows = [self._rows.get(key, -1) for key in keys.tolist()]
        if self._values is None or -1 in rows:
            self.misses += len(rows)
            return None
        self.hits += len(rows)
        return self._values[torch.tensor(rows, dtype=torch.int64)].to(keys.device)

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Store outputs; a key that is stored already keeps its first one, and none that is not finite is stored.

        A NaN may come from one unlucky step in half precision; stored, it would come back in every epoch.

        Args:
            keys: of :func:`sample_keys`, ``(N,)``.
            values: the outputs ``(N, ...)``; a copy is kept on the CPU.

        Raises:
            ValueError: there are more or fewer than keys, or their shape or type differs from that of the first ones.
        """
        if len(values) != len(keys):
            raise ValueError(f"values expected one row per key, {len(keys)}, but got {describe(values)}.")
        if not values.is_floating_point():
            return
        finite = values.detach().flatten(1).isfinite().all(1) if values.dim() > 1 else values.detach().isfinite()
        fresh: dict[int, int] = {}
        for row, (key, is_finite) in enumerate(zip(keys.tolist(), finite.tolist(), strict=True)):
            if is_finite and key not in self._rows:
                fresh.setdefault(key, row)
        if not fresh:
            return
        stored = self._room(len(self) + len(fresh), values)
        start = len(self)
        chosen = values.detach()[torch.tensor(list(fresh.values()), device=values.device)]
        stored[start : start + len(fresh)] = chosen.cpu()
        self._rows.update({key: start + place for place, key in enumerate(fresh)})

    def _room(self, n: int, like: Tensor) -> Tensor:
        """Return the storage with room for ``n`` rows, at least doubled when it has to grow."""
        if self._values is None:
            self._values = torch.empty(n, *like.shape[1:], dtype=like.dtype)
        old = self._values
        if old.shape[1:] != like.shape[1:] or old.dtype != like.dtype:
            raise ValueError(
                f"values expected outputs like those before, {describe(old[: len(self)])}, but got {describe(like)}:"
                " one cache holds the outputs of one teacher, computed in one precision."
            )
        if len(old) < n:
            # Doubling keeps the copies linear in the number of rows in all.
            self._values = torch.empty(max(n, 2 * len(old)), *old.shape[1:], dtype=old.dtype)
            self._values[: len(self)] = old[: len(self)]
        return self._values

    def save(self) -> None:
        """Write the file atomically, with the outputs that others have put there since; do nothing without new ones.

        A file that cannot be written, or that others have replaced by another, is left as it is with a warning, once:
        training does not depend on it. The next call tries again.
        """
        if self.path is None or self._values is None or self._saved == len(self):
            return
        try:
            with locked(self.path):
                self._merge(self.path)
                write_outputs(self.path, self.teacher, [*self._rows], self._values[: len(self)])
                self._signature = signature(self.path)
            self._saved = len(self)
        except (OSError, ValueError) as error:
            if not self._is_told:
                reason = " ".join(str(error).split()).rstrip(".")
                warnings.warn(
                    f"cache={str(self.path)!r} could not be written, so the teacher's new outputs are kept in memory"
                    f" alone: {reason}.",
                    stacklevel=2,
                )
            self._is_told = True

    def _merge(self, path: Path) -> None:
        """Take over the outputs in a file that another process has written since."""
        if path.exists() and signature(path) != self._signature:
            keys, values = read_outputs(path, self.teacher)
            self._room(len(self), values)  # refuses those of another shape or precision
            self.add(torch.tensor(keys, dtype=torch.int64), values)

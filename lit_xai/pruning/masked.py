"""Whether a network computes without channels what it computes with these at zero: the test of what hangs together.

Torch-Pruning reads from a graph of gradients which indices belong to one channel. It knows nothing of a shuffle, a flip
or a part that is taken by numbers: what comes out then runs, with other channels behind each weight. Statistics over
channels (LayerNorm, softmax) change with the number of channels and say nothing about that: they are left out of both
runs.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lit_xai.structure.positions import named_tensors

TF32 = 0.01
"""How far outputs on a GPU may be apart at least, as a share of the largest: products of TF32 are off by 0.001."""

REDUCING = ("mean", "var", "std", "var_mean", "std_mean", "amax", "amin", "max", "min", "logsumexp", "prod", "median")
"""Operations that turn channels into one number, in which zeros count."""

NORMALISING = ("native_layer_norm", "_fused_rms_norm", "native_group_norm", "_softmax", "_log_softmax")
"""Operations that keep the shape, but weigh channels by what the others are."""

POOLING = ("avg_pool2d", "avg_pool3d")
"""How ``nn.LocalResponseNorm`` sums over neighbouring channels."""

ORDERING = ("topk", "sort", "argsort", "kthvalue", "argmax", "argmin", "cumprod")
"""Operations after which nothing can be compared."""


Telling = tuple[str, Any, list[float]]
"""An operation, how many values it looks at together, and the numbers that it was given."""


class Comparison:
    """Two runs of the same operations, the first of a network without channels, the second with them at zero.

    Args:
        run: calls the network as it then is and returns its floating outputs.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2), torch.nn.Linear(2, 1))
        >>> comparison = Comparison(lambda: [network(torch.ones(1, 2))])
        >>> comparison.run_cut()
        >>> comparison.run_masked()
        >>> comparison.differs
        False
    """

    def __init__(self, run: Callable[[], list[Tensor]]) -> None:
        self._run = run
        self._seen: list[Telling] = []
        self._left_out: dict[int, Tensor] = {}
        self._cut: list[Tensor] = []
        self._masked: list[Tensor] = []
        self._comparable = True

    def run_cut(self) -> None:
        """Run the network without channels."""
        with _Recording() as recording:
            self._cut = self._run()
        self._seen, self._comparable = recording.seen, recording.comparable

    def run_masked(self) -> None:
        """Run it with them at zero."""
        with _Repeating(self._seen) as repeating:
            self._masked = self._run()
        self._left_out = repeating.left_out
        self._comparable &= repeating.comparable and repeating.place == len(self._seen)

    @property
    def has_to_repeat(self) -> bool:
        """Whether statistics over channels were left out of the second run, as they then have to be of the first."""
        return self._comparable and bool(self._left_out)

    def repeat_cut(self) -> None:
        """Run the network without channels again, without these statistics."""
        with _Leaving(self._left_out):
            self._cut = self._run()

    @property
    def differs(self) -> bool:
        """Whether the outputs do, where they can be compared."""
        return self._comparable and not all(
            cut.shape == masked.shape and _near(cut, masked)
            for cut, masked in zip(self._cut, self._masked, strict=True)
        )


@contextlib.contextmanager
def told_apart(network: nn.Module) -> Iterator[None]:
    """Inside, parameters are also noise: zeros (a scale, a bias) would hide what comes from where."""
    values = [(value, value.data) for value in network.parameters()]
    noise = torch.Generator().manual_seed(0)
    try:
        for parameter, value in values:
            if value.is_floating_point():
                deviation = (value.numel() / len(value)) ** -0.5 if value.dim() > 1 else 0.3
                added = torch.randn(value.shape, generator=noise).mul_(deviation)
                # Offsets upwards: behind rectifiers that are all off, nothing could be told apart.
                parameter.data = value + (added if value.dim() > 1 else added.abs_()).to(value)
        yield
    finally:
        for parameter, value in values:
            parameter.data = value


@contextlib.contextmanager
def masked(network: nn.Module, kept: Iterable[list[Any]]) -> Iterator[None]:
    """Inside, what a step does not keep is zero.

    Args:
        network: before the step.
        kept: of the step: name, dimension, size before, indices kept.
    """
    tensors = named_tensors(dict(network.named_modules(remove_duplicate=False)))
    values = {name: tensors[name].data for name, *_ in kept}
    try:
        for name, dim, size, indices in kept:
            gone = torch.ones(size, dtype=torch.bool)
            gone[indices] = False
            places = gone.nonzero().flatten().to(values[name].device)
            tensors[name].data = tensors[name].data.index_fill(dim, places, 0)
        yield
    finally:
        for name, value in values.items():
            tensors[name].data = value


@contextlib.contextmanager
def without_fused_attention() -> Iterator[None]:
    """Inside, torch's encoder layers compute in single operations, of which statistics can be left out."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _near(cut: Tensor, masked: Tensor) -> bool:
    tolerance = max(TF32 if masked.is_cuda else 0.0, math.sqrt(torch.finfo(masked.dtype).eps))
    cut, masked = cut.double(), masked.double()
    finite = cut.isfinite() & masked.isfinite()
    if not finite.any():
        return True
    return bool((cut - masked)[finite].abs().max() <= tolerance * masked[finite].abs().max())


class _Recording(TorchDispatchMode):
    """Which operations there were that the number of channels may matter to."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Telling] = []
        self.comparable = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _name(func)
        if torch.Tag.nondeterministic_seeded in func.tags and "scaled_dot_product" not in name:
            self.comparable = False
        if (found := _telling(name, args)) is not None:
            self.seen.append(found)
        return func(*args, **(kwargs or {}))


class _Repeating(TorchDispatchMode):
    """The same again with more channels: numbers that come from their count (a scale) stay what they were."""

    def __init__(self, seen: list[Telling]) -> None:
        super().__init__()
        self.seen, self.place, self.comparable, self.left_out = seen, 0, True, dict[int, Tensor]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, place, kwargs = _name(func), self.place, dict(kwargs or {})
        if _telling(name, args) is None:
            return func(*args, **kwargs)
        self.place += 1
        if not self.comparable or place >= len(self.seen) or self.seen[place][0] != name:
            self.comparable = False
            return func(*args, **kwargs)
        _, together, numbers = self.seen[place]
        args = _with_numbers(args, numbers)
        if together == _together(name, args):
            return func(*args, **kwargs)
        if "scaled_dot_product" in name:
            kwargs["scale"] = kwargs.get("scale") or together**-0.5
            return func(*args, **kwargs)
        if name in ORDERING:
            self.comparable = False
            return func(*args, **kwargs)
        self.left_out[place] = args[0].square().mean().sqrt().clamp(min=1e-6)
        return _leave_out(self.left_out[place], name, func, args, kwargs)


class _Leaving(TorchDispatchMode):
    """The same without the statistics at these places."""

    def __init__(self, left_out: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.left_out, self.place = left_out, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _name(func)
        if _telling(name, args) is not None:
            self.place += 1
            if self.place - 1 in self.left_out:
                return _leave_out(self.left_out[self.place - 1], name, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)


def _telling(name: str, args: Any) -> Telling | None:
    """Return an operation whose result may depend on the number of channels; others need not be the same ones."""
    together, numbers = _together(name, args), _numbers(args)
    return (name, together, numbers) if together is not None or numbers else None


def _together(name: str, args: Any) -> Any:
    """Return how many values an operation looks at together, where their number matters."""
    if name == "native_group_norm":
        return args[4] // args[6]
    if name in ("native_layer_norm", "_fused_rms_norm"):
        return math.prod(args[1])
    if "scaled_dot_product" in name:
        return args[0].shape[-1]
    if name in POOLING:
        return tuple(args[0].shape[2:])
    if name in (*REDUCING, *NORMALISING, *ORDERING):
        return _reduced(name, args)
    return None


def _reduced(name: str, args: Any) -> int | None:
    given = args[1] if len(args) > 1 else None
    if isinstance(given, Tensor):  # the larger of two, place by place
        return None
    if name in ("topk", "kthvalue"):
        given = args[2] if len(args) > 2 else -1
    elif name in ("sort", "argsort") and given is None:
        given = -1
    if given is None or isinstance(given, bool) or given == []:
        return int(args[0].numel())
    dims: list[int] = [given] if isinstance(given, int) else list(given)
    return math.prod(args[0].shape[dim] for dim in dims)


def _leave_out(scale: Tensor, name: str, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Return what an operation gives when channels do not weigh in; normalised to one scale in both runs."""
    found = func(*args, **kwargs)
    if name in ("_softmax", "_log_softmax"):
        return args[0] / scale
    if name in NORMALISING:
        weight, bias, dim = {
            "native_layer_norm": lambda: (args[2], args[3], -1),
            "_fused_rms_norm": lambda: (args[2], None, -1),
            "native_group_norm": lambda: (args[1], args[2], 1),
        }[name]()
        value = args[0] / scale
        for factor, apply in ((weight, torch.mul), (bias, torch.add)):
            if factor is not None:
                around = [-1] + [1] * (value.dim() - 2) if dim == 1 else factor.shape
                value = apply(value, factor.view(around))
        return (value.to(found[0].dtype), *found[1:])
    if isinstance(found, Tensor):
        return torch.ones_like(found)
    return tuple(torch.ones_like(value) if value.is_floating_point() else torch.zeros_like(value) for value in found)


def _numbers(args: Any) -> list[float]:
    return [value for value in args if isinstance(value, float)]


def _with_numbers(args: Any, numbers: list[float]) -> Any:
    if len(_numbers(args)) != len(numbers):
        return args
    given = iter(numbers)
    return tuple(next(given) if isinstance(value, float) else value for value in args)

"""The test that a cut mixes up no channels: removing them has to give the same outputs as setting them to zero.

Torch-Pruning reads from a graph of gradients which indices belong to one channel. It does not see a shuffle, a flip
or a slice by fixed numbers: the pruned network then runs, with other channels behind each weight. Statistics over
channels (LayerNorm, softmax) change with the number of channels, which is no error: they are left out of both
runs.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lit_xai.network.layers import traceable
from lit_xai.structure.positions import named_tensors

TF32 = 0.01
"""The least tolerance for outputs on a GPU, as a share of the largest: products of TF32 are off by 0.001."""

REDUCING = ("mean", "var", "std", "var_mean", "std_mean", "amax", "amin", "max", "min", "logsumexp", "prod", "median")
"""Operations that reduce channels to one number, in which channels at zero still count."""

NORMALIZING = ("native_layer_norm", "_fused_rms_norm", "native_group_norm", "_softmax", "_log_softmax")
"""Operations that keep the shape, but whose result for one channel depends on the others."""

POOLING = ("avg_pool2d", "avg_pool3d")
"""Operations that ``nn.LocalResponseNorm`` sums over neighboring channels with."""

ORDERING = ("topk", "sort", "argsort", "kthvalue", "argmax", "argmin", "cumprod")
"""Operations that order channels, after which outputs cannot be compared."""


class OpRecord(NamedTuple):
    """An operation whose result may depend on the number of channels."""

    name: str
    together: Any
    """The number of values that it reduces together, ``None`` where that does not matter."""
    numbers: list[float]
    """The floating arguments, which may have been computed from the number of channels."""


Kept = list[list[Any]]
"""The entries of a step: name, dimension, size before, indices that are kept."""


def mixes_up_channels(
    network: nn.Module, run: Callable[[], list[Tensor]], cut: Callable[[], AbstractContextManager[Kept]]
) -> bool:
    """Return whether a network without channels gives other outputs than with these channels at zero.

    The cut network runs first, and its operations are recorded. The same ones are repeated with the channels at zero,
    on the numbers of the first run. If statistics over channels had to be left out there, the cut network runs once
    more without them. Runs that cannot be compared (they draw random numbers, or order channels) count as the same.

    Args:
        network: in eval mode; its parameters have other values meanwhile, and their own again afterwards.
        run: calls the network in its present state and returns its floating-point outputs.
        cut: a context in which the network is without the channels; yields what is kept.

    Example:
        >>> import contextlib
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 1))
        >>> mixes_up_channels(network, lambda: [network(torch.ones(1, 2))], contextlib.nullcontext)  # nothing is cut
        False
    """
    with perturbed_parameters(network), traceable(), unfused_attention(), torch.no_grad():
        # In this order: the cut run fixes the numbers (such as a scale of 1 / sqrt(width)) that the run at zero
        # repeats.
        with cut() as kept, _Recording() as recording:
            without = run()
        if not kept:
            return False
        with masked(network, kept), _Repeating(recording.seen) as repeating:
            at_zero = run()
        if not recording.comparable or not repeating.comparable or repeating.place != len(recording.seen):
            return False
        # Statistics over more channels differ rightly; both runs leave them out at the same places.
        if repeating.left_out:
            with cut(), _Leaving(repeating.left_out):
                without = run()
        return not all(a.shape == b.shape and _near(a, b) for a, b in zip(without, at_zero, strict=True))


@contextlib.contextmanager
def perturbed_parameters(network: nn.Module) -> Iterator[None]:
    """Add noise to parameters inside: parameters at zero (a scale, a bias) would make channels indistinguishable."""
    values = [(value, value.data) for value in network.parameters()]
    noise = torch.Generator().manual_seed(0)
    try:
        for parameter, value in values:
            if value.is_floating_point():
                # Weights (out, in, ...) get noise of 1 / sqrt(fan-in), which keeps activations at one size through the
                # layers.
                deviation = (value.numel() / len(value)) ** -0.5 if value.dim() > 1 else 0.3
                added = torch.randn(value.shape, generator=noise).mul_(deviation)
                # Offsets only upwards: behind rectifiers that are all off, channels could not be distinguished.
                parameter.data = value + (added if value.dim() > 1 else added.abs_()).to(value)
        yield
    finally:
        for parameter, value in values:
            parameter.data = value


@contextlib.contextmanager
def masked(network: nn.Module, kept: Iterable[list[Any]]) -> Iterator[None]:
    """Set what a step does not keep to zero inside.

    Args:
        network: before the step.
        kept: of the step: name, dimension, size before, indices kept.
    """
    tensors = named_tensors(dict(network.named_modules(remove_duplicate=False)))
    values = {name: tensors[name].data for name, *_ in kept}
    try:
        for name, dim, size, indices in kept:
            # Along one dimension, all that is not kept.
            gone = torch.ones(size, dtype=torch.bool)
            gone[indices] = False
            places = gone.nonzero().flatten().to(values[name].device)
            tensors[name].data = tensors[name].data.index_fill(dim, places, 0)
        yield
    finally:
        for name, value in values.items():
            tensors[name].data = value


@contextlib.contextmanager
def unfused_attention() -> Iterator[None]:
    """Have torch's encoder layers compute in single operations, whose statistics can be left out."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _near(cut: Tensor, masked: Tensor) -> bool:
    # Half of the type's digits, since sums run in another order in the two networks.
    tolerance = max(TF32 if masked.is_cuda else 0.0, math.sqrt(torch.finfo(masked.dtype).eps))
    cut, masked = cut.double(), masked.double()
    # Infinite values, such as masked attention scores, have no distance.
    finite = cut.isfinite() & masked.isfinite()
    if not finite.any():
        return True
    return bool((cut - masked)[finite].abs().max() <= tolerance * masked[finite].abs().max())


class _Recording(TorchDispatchMode):
    """Record the operations that may depend on the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[OpRecord] = []
        self.comparable = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _name(func)
        # Attention has the tag for its dropout, which is off in eval mode.
        if torch.Tag.nondeterministic_seeded in func.tags and "scaled_dot_product" not in name:
            self.comparable = False
        if (record := _record(name, args)) is not None:
            self.seen.append(record)
        return func(*args, **(kwargs or {}))


class _Repeating(TorchDispatchMode):
    """Repeat recorded operations with more channels, on the recorded numbers where these depend on the channels."""

    def __init__(self, seen: list[OpRecord]) -> None:
        super().__init__()
        self.seen, self.place, self.comparable, self.left_out = seen, 0, True, dict[int, Tensor]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, place, kwargs = _name(func), self.place, dict(kwargs or {})
        if _record(name, args) is None:
            return func(*args, **kwargs)
        self.place += 1
        if not self.comparable or place >= len(self.seen) or self.seen[place].name != name:
            self.comparable = False
            return func(*args, **kwargs)
        _, together, numbers = self.seen[place]
        args = _with_numbers(args, numbers)
        if together == _together(name, args):
            return func(*args, **kwargs)
        if "scaled_dot_product" in name:
            # The default, 1 / sqrt(width of a head), of the cut network: zeros in a query or key change no product, but
            # the wider head would change the default.
            kwargs["scale"] = kwargs.get("scale") or together**-0.5
            return func(*args, **kwargs)
        if name in ORDERING:
            self.comparable = False
            return func(*args, **kwargs)
        # The root mean square of the input stands in for the statistics in both runs.
        self.left_out[place] = args[0].square().mean().sqrt().clamp(min=1e-6)
        return _leave_out(self.left_out[place], name, func, args, kwargs)


class _Leaving(TorchDispatchMode):
    """Repeat operations without the statistics at these places."""

    def __init__(self, left_out: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.left_out, self.place = left_out, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _name(func)
        if _record(name, args) is not None:
            self.place += 1
            if self.place - 1 in self.left_out:
                return _leave_out(self.left_out[self.place - 1], name, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)


def _record(name: str, args: Any) -> OpRecord | None:
    """Return an operation whose result may depend on the number of channels; others may differ between the runs."""
    together, numbers = _together(name, args), _numbers(args)
    return OpRecord(name, together, numbers) if together is not None or numbers else None


def _together(name: str, args: Any) -> Any:
    """Return how many values an operation reduces together, where their number matters."""
    if name == "native_group_norm":
        return args[4] // args[6]
    if name in ("native_layer_norm", "_fused_rms_norm"):
        return math.prod(args[1])
    if "scaled_dot_product" in name:
        return args[0].shape[-1]
    if name in POOLING:
        return tuple(args[0].shape[2:])
    if name in (*REDUCING, *NORMALIZING, *ORDERING):
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
    """Return an operation's result without its statistics, normalized to one scale in both runs."""
    found = func(*args, **kwargs)
    if name in ("_softmax", "_log_softmax"):
        return args[0] / scale
    if name in NORMALIZING:
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

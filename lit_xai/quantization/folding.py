"""Folding of BatchNorm into the layer before it; pairs are found by observing one forward, without tracing.

In eval mode BatchNorm multiplies each channel by one number and adds another, which the weight and bias of the layer
before it can absorb (`Jacob et al. 2018 <https://arxiv.org/abs/1712.05877>`_, section 3.2).
"""

import contextlib
import gc
import itertools
import warnings
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lit_xai.network.calling import Inputs, OutputSpec, call_network, find_logits, find_network
from lit_xai.network.copying import copy_network
from lit_xai.network.layers import match_layers
from lit_xai.network.spelling import nearest
from lit_xai.network.trees import changed, leaves
from lit_xai.network.untouched import untouched

# The layers that can absorb a BatchNorm, and the number of dimensions of their outputs, including the batch.
_LAYERS: Mapping[type[nn.Module], int] = {
    nn.Linear: 2,
    nn.Conv1d: 3,
    nn.Conv2d: 4,
    nn.Conv3d: 5,
    nn.ConvTranspose1d: 3,
    nn.ConvTranspose2d: 4,
    nn.ConvTranspose3d: 5,
}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_NORM_FORWARDS = frozenset(kind.forward for kind in _NORMS)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

# Queries of a layer's output or weight whose answers folding does not change.
_METADATA = {"shape", "size", "dim", "ndim", "numel", "dtype", "device", "is_cuda", "is_floating_point", "__len__"}


def find_foldable(
    network: nn.Module, example_inputs: Inputs, call: str = "forward", output: OutputSpec = None
) -> list[tuple[str, str]]:
    """Return the names of each layer and the BatchNorm that can be folded into it, in the order in which they run.

    The network runs once in eval mode and is left unchanged. In a pair, the BatchNorm takes the very tensor that the
    layer returns, and is its only consumer: no residual, view, in-place operation, attribute or return value uses it.
    Both run once, have one name, own their parameters and have no hooks. Layers are torch's own convolutions,
    transposed ones and ``Linear`` on ``(N, C)``; subclasses and parametrized layers are left out. BatchNorms include
    ``SyncBatchNorm`` and subclasses that compute a BatchNorm in this forward, but not those without running statistics.

    A branch that this forward does not take is not observed.

    Args:
        network: the module, in any mode.
        example_inputs: the inputs of one call.
        call: the method that is called.
        output: the logits in its output: a key, an attribute, an index or a function.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
        >>> find_foldable(network, torch.zeros(1, 1, 8, 8))
        [('0', '1')]
    """
    network = find_network(network)
    candidates, held = _candidates(network), []

    def keep(result: Any) -> Tensor:
        held.append(result)  # all of it: a layer's output within it has a second consumer, the caller
        return find_logits(result, output)

    with untouched(network, seed=None), torch.no_grad():
        forward = _Forward(candidates)
        with forward.watched():
            call_network(network, _cloned(example_inputs), call, keep)
        # Before untouched() resets attributes that the forward has set: they may be the second consumer of a tensor.
        return forward.pairs()


def _candidates(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers and BatchNorms that a fold may change: nothing else shares them or depends on them."""
    named = _names(network)
    # A module under two names, or a parameter of two modules, would be folded for one use and change the other.
    names = Counter(id(module) for module in named.values())
    owners = Counter(id(p) for module in network.modules() for p in module.parameters(recurse=False))

    def is_shared(module: nn.Module) -> bool:
        return names[id(module)] > 1 or any(owners[id(p)] > 1 for p in module.parameters(recurse=False))

    def is_plain(module: nn.Module) -> bool:
        # A hook may read or replace the output that a fold changes; a forward on the instance may do anything.
        return "forward" not in vars(module) and not any(getattr(module, hooks) for hooks in _HOOKS)

    return {
        name: module
        for name, module in named.items()
        if (_is_layer(module) or _is_norm(module)) and is_plain(module) and not is_shared(module)
    }


def _names(network: nn.Module) -> dict[str, nn.Module]:
    """Return every name of every submodule; a module that is registered twice has two."""
    named = find_network(network).named_modules(remove_duplicate=False)
    # torch.compile puts `_orig_mod` into names; pairs use the names of the module as it was written.
    return {name.replace("._orig_mod", ""): find_network(module) for name, module in named if name}


def _is_layer(module: nn.Module) -> bool:
    # torch's pruning masks and its older weight_norm make a plain attribute of a parameter, parametrizations change the
    # class: a new value for the weight would be lost in all of them.
    return type(module) in _LAYERS and module._parameters.get("weight") is not None and "bias" in module._parameters


def _is_norm(module: nn.Module) -> bool:
    if not isinstance(module, _NORMS):
        return False
    return isinstance(module.running_mean, Tensor) and isinstance(module.running_var, Tensor)


def _computes_batch_norm(module: Any, inputs: Any, result: Any) -> bool:
    """Return whether a BatchNorm's output in eval mode is that of torch's own; a subclass may add an activation."""
    if type(module).forward in _NORM_FORWARDS:
        return True
    if not isinstance(inputs, Tensor) or not isinstance(result, Tensor) or inputs.shape != result.shape:
        return False
    statistics = module.running_mean, module.running_var, module.weight, module.bias
    expected = torch.nn.functional.batch_norm(inputs, *statistics, training=False, eps=module.eps)
    return torch.allclose(result, expected.to(result), rtol=1e-3, atol=1e-5)


class _Forward:
    """Observe what one forward does with layers, BatchNorms and the tensors between them.

    Args:
        candidates: the modules to observe, by name.
    """

    def __init__(self, candidates: Mapping[str, nn.Module]) -> None:
        self.candidates = candidates
        self.calls: Counter[str] = Counter()
        self.running: set[str] = set()
        self.excluded: set[str] = set()
        self.outputs: dict[str, weakref.ref[Tensor]] = {}
        self.fed: defaultdict[str, list[str]] = defaultdict(list)
        # By the tensor's id. Another tensor may get the same id once this one is freed, hence the weak reference.
        self.owners: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        for name, module in candidates.items():
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                self._own(tensor, name)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Observe what runs in the body."""
        # Hooks tell which module runs; the two modes see every other use of a layer's output, as Python calls or as
        # dispatched operations. All three are needed: see the classes below.
        with contextlib.ExitStack() as stack:
            for name, module in self.candidates.items():
                enter, leave = partial(self._enter, name), partial(self._leave, name)
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
            stack.enter_context(_Functions(self))
            stack.enter_context(_Operations(self))
            yield

    def pairs(self) -> list[tuple[str, str]]:
        """Return the names of layer and BatchNorm; call it while the forward's result is still referenced."""
        # Two BatchNorms that take one output cannot both be folded into its layer.
        pairs = [(layer, norms[0]) for layer, norms in self.fed.items() if len(norms) == 1]
        pairs = [pair for pair in pairs if all(map(self._ran_once, pair))]
        if any(self.outputs[layer]() is not None for layer, _ in pairs):
            gc.collect()  # a tensor that only a reference cycle keeps alive has no consumer
        return [(layer, norm) for layer, norm in pairs if self.outputs[layer]() is None]

    def see(self, name: str, arguments: Any) -> None:
        """Exclude the layers whose output or weight a function of this name takes."""
        for _, value in leaves(arguments):
            owner = self._owner(value)
            # Uses inside the layer's own forward, or inside the BatchNorm that takes its output, are those that a fold
            # keeps.
            if owner is None or owner in self.running or not self.running.isdisjoint(self.fed.get(owner, ())):
                continue
            # A folded BatchNorm is an Identity, which has no weight to query.
            if name not in _METADATA or _is_norm(self.candidates[owner]):
                self.excluded.add(owner)

    def _ran_once(self, name: str) -> bool:
        return self.calls[name] == 1 and name not in self.excluded | self.running

    def _own(self, tensor: Tensor, name: str) -> weakref.ref[Tensor]:
        reference = weakref.ref(tensor)
        self.owners[id(tensor)] = reference, name
        return reference

    def _owner(self, value: Any) -> str | None:
        reference, name = self.owners.get(id(value), (None, None))
        return name if reference is not None and reference() is value else None

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls[name] += 1
        self.running.add(name)
        # The BatchNorm has to take the very tensor, as its first argument; a view or a copy of it is another tensor.
        given = next(iter((*args, *kwargs.values())), None)
        layer = self._owner(given)
        if _is_norm(module) and layer in self.outputs and self.outputs[layer]() is given:
            self.fed[layer].append(name)
        if module.training:  # a forward of its own switched it
            self.excluded.add(name)

    def _leave(
        self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> None:
        if _is_norm(module) and not _computes_batch_norm(module, next(iter((*args, *kwargs.values())), None), result):
            self.excluded.add(name)
        dims = _LAYERS.get(type(module))
        # Linear on (N, T, C) is left out: BatchNorm1d then reads dimension 1, T, as channels. So are unbatched inputs.
        if dims is not None and result.dim() == dims:
            self.outputs[name] = self._own(result, name)
        self.running.discard(name)


class _Functions(TorchFunctionMode):
    """Intercept what Python calls, including ``numpy()`` and ``data``, which dispatch no operation."""

    def __init__(self, forward: _Forward) -> None:
        super().__init__()
        self.forward = forward

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        # Attributes such as `.data` arrive as the getter of a property, which has the name.
        if name == "__get__":
            name = getattr(func.__self__, "__name__", "")
        self.forward.see(name, (args, kwargs))
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Intercept the operations, including those of scripted functions, which Python does not call."""

    def __init__(self, forward: _Forward) -> None:
        super().__init__()
        self.forward = forward

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.forward.see(str(func), (args, kwargs))
        return func(*args, **(kwargs or {}))


def _cloned(inputs: Inputs) -> Inputs:
    copied: Inputs = changed(inputs, torch.clone)  # a forward may normalize its images in place
    return copied


def fold_batch_norms_(network: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    r"""Fold each BatchNorm into its layer, and put ``nn.Identity`` in its place.

    .. math:: W' = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} W, \qquad
        b' = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} (b - \mu) + \beta

    Computed in float64. The outputs are equal in eval mode only, as BatchNorm uses the batch's statistics in training
    mode. The layers get new parameters, which an existing optimizer does not hold.

    Args:
        network: the module to change.
        pairs: names of layer and BatchNorm, from :func:`find_foldable`.

    Fake-quantizers in the network follow: see :class:`FollowsFold`.

    Raises:
        ValueError: a pair cannot be folded; nothing is changed then.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8)).eval()
        >>> inputs = torch.randn(2, 4)
        >>> before = network(inputs)
        >>> fold_batch_norms_(network, [("0", "1")])
        >>> network[1], torch.allclose(network(inputs), before, atol=1e-6)
        (Identity(), True)
    """
    pairs = list(pairs)
    modules = _checked_pairs(_names(network), pairs)
    with torch.inference_mode(False), torch.no_grad():
        # All pairs were checked before this point, so that an error changes nothing.
        _tell_followers(network, {name: _fold_scale(norm) for (name, _), (_, norm) in zip(pairs, modules, strict=True)})
        for layer, norm in modules:
            _fold_(layer, norm)
            # An Identity rather than no module: names and places in a Sequential stay those of the recipe and of the
            # state dict.
            replace_(network, norm, nn.Identity().train(norm.training))


@runtime_checkable
class FollowsFold(Protocol):
    """A submodule that stores facts about its parent's weights, such as their ranges, which a fold changes."""

    def follow_fold_(self, scales: Mapping[str, Tensor]) -> None:
        """Follow a fold of BatchNorms into layers.

        Args:
            scales: the number that each output channel of a layer's weight is multiplied with, ``(C,)`` in float64, by
                the layer's name in the parent of this module.
        """


def _tell_followers(network: nn.Module, scales: Mapping[str, Tensor]) -> None:
    for name, module in _names(network).items():
        if isinstance(module, FollowsFold):
            prefix = name[: name.rfind(".") + 1]
            module.follow_fold_({key.removeprefix(prefix): s for key, s in scales.items() if key.startswith(prefix)})


def fold_signs(norm: Any, weight: Tensor) -> Tensor | None:
    """Return the signs of the numbers that a fold multiplies a weight with, ``(C, 1, ..., 1)``; ``None`` if all are 1.

    Args:
        norm: a BatchNorm.
        weight: with output channels first; not of a transposed convolution.
    """
    # The sign of gamma, as the rest of the factor is positive. Looked at on the CPU alone: elsewhere it means waiting.
    if norm.weight is None or (norm.weight.device.type == "cpu" and not (norm.weight < 0).any()):
        return None
    signs = torch.where(norm.weight < 0, -1.0, 1.0).to(weight.device)
    return signs.view(-1, *(1,) * (weight.dim() - 1))


def _fold_scale(norm: Any) -> Tensor:
    scale = (_double(norm.running_var) + norm.eps).rsqrt()
    return scale if norm.weight is None else scale * _double(norm.weight)


def check_pairs(network: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse names that are no layers with a BatchNorm that can be folded into them, or that come twice.

    Raises:
        ValueError: names the pair.
    """
    _checked_pairs(_names(network), list(pairs))


def _checked_pairs(named: Mapping[str, nn.Module], pairs: list[tuple[str, str]]) -> list[tuple[Any, Any]]:
    """Return the modules of pairs of names, or raise a ValueError."""
    names = list(itertools.chain.from_iterable(pairs))
    unknown = next((name for name in names if name not in named), None)
    if unknown is not None:
        raise ValueError(f"pairs expected names of modules, but got {unknown!r}.{nearest(unknown, named)}")
    modules = [_checked_pair(named, pair) for pair in pairs]
    if len({id(named[name]) for name in names}) < len(names):
        raise ValueError(f"pairs expected each module once, but got {pairs}: take them from find_foldable().")
    return modules


def _checked_pair(named: Mapping[str, nn.Module], pair: tuple[str, str]) -> tuple[Any, Any]:
    layer, norm = (named[name] for name in pair)
    if not (_is_layer(layer) and _is_norm(norm) and _out_channels(layer) == norm.num_features):
        raise ValueError(
            "pairs expected a convolution or linear layer and a BatchNorm with running statistics for its channels,"
            f" but got {pair} of {type(layer).__name__} and {type(norm).__name__}: take them from find_foldable()."
        )
    return layer, norm


def _out_channels(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _fold_(layer: Any, norm: Any) -> None:
    mean, scale = _double(norm.running_mean), _fold_scale(norm)
    bias = -mean if layer.bias is None else _double(layer.bias) - mean
    bias = bias * scale if norm.bias is None else bias * scale + _double(norm.bias)
    # A new bias is trained if the bias that it replaces was; without one, if the weight is.
    is_trained = next((p for p in (layer.bias, norm.bias) if p is not None), layer.weight).requires_grad
    weight = _double(layer.weight) * per_weight(layer, scale)
    # empty_like keeps the memory format (channels_last) and the dtype.
    layer.weight = nn.Parameter(torch.empty_like(layer.weight).copy_(weight), layer.weight.requires_grad)
    layer.bias = nn.Parameter(layer.weight.new_empty(bias.shape).copy_(bias), is_trained)


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)  # MPS has no float64


def per_weight(layer: Any, scale: Tensor) -> Tensor:
    """Return a scale of shape ``(C,)`` in the shape that multiplies a layer's weight.

    The weight of a transposed convolution is ``(in, out / groups, ...)``: its output channels are not its first
    dimension.
    """
    if isinstance(layer, _TRANSPOSED):
        scale = scale.view(layer.groups, -1).repeat_interleave(layer.in_channels // layer.groups, 0)
    return scale.reshape(*scale.shape, *(1,) * (layer.weight.dim() - scale.dim()))


def replace_(network: nn.Module, module: nn.Module, replacement: nn.Module) -> None:
    """Replace a module by another one, wherever it is in the network."""
    parents = list(find_network(network).modules())
    # Every place that holds it, under torch.compile's wrapper too.
    slots = [
        (p, key) for p in parents for key, child in p._modules.items() if getattr(child, "_orig_mod", child) is module
    ]
    for parent, key in slots:
        parent._modules[key] = replacement


def folded_copy(
    network: nn.Module,
    example_inputs: Inputs,
    *,
    keep: Iterable[str | type] = (),
    call: str = "forward",
    output: OutputSpec = None,
    tolerance: float = 1e-4,
) -> nn.Module:
    """Return a copy in eval mode with its BatchNorms folded, if it gives the same outputs.

    If it does not, or the network cannot be run or changed, the copy is returned unfolded, with a warning.

    Args:
        network: the module to copy; it is left unchanged.
        example_inputs: what it is called with.
        keep: layers and BatchNorms that are not folded, for example because their outputs are used: names, patterns
            with ``*`` or classes; a module's submodules are included.
        call: the method that is called.
        output: the logits in its output: a key, an attribute, an index or a function.
        tolerance: how far outputs may move, as a share of the largest; rounding in half precision moves them by
            0.002 to 0.1 in residual networks.

    Raises:
        ValueError: ``keep`` matches nothing.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        >>> folded_copy(network, torch.zeros(2, 4))
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): Identity()
          (2): ReLU()
        )
    """
    with torch.inference_mode(False):
        copied = copy_network(network).eval()
    kept = {module for found in match_layers(copied, keep, "keep") for module in found.modules()}
    named = _names(copied)
    try:
        found = find_foldable(copied, example_inputs, call, output)
        pairs = [pair for pair in found if not any(named[name] in kept for name in pair)]
        expected = _outputs(copied, example_inputs, call, output)
        fold_batch_norms_(copied, pairs)
        deviation = _deviation(_outputs(copied, example_inputs, call, output), expected)
        if deviation <= tolerance:
            return copied
        reason = f"its outputs would move by {deviation:.1e} of the largest"
    # The network's own code runs here, and folding is only an optimization: any failure means no fold.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0].rstrip(".")
    warnings.warn(f"BatchNorm was not folded in {type(network).__name__}: {reason}.", stacklevel=2)
    with torch.inference_mode(False):
        return copy_network(network).eval()


def _outputs(network: nn.Module, inputs: Inputs, call: str, output: OutputSpec) -> list[Tensor]:
    """Return every floating-point tensor in the network's output, the logits first."""
    outputs: list[Tensor] = []

    def keep(result: Any) -> Tensor:
        logits = find_logits(result, output)
        outputs.extend(value for _, value in leaves((logits, result)) if value.is_floating_point())
        return logits

    with untouched(network), torch.no_grad():
        call_network(network, _cloned(inputs), call, keep)
    return outputs


def _deviation(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference as a share of the largest finite output; NaN if an output is."""
    worst = torch.zeros((), dtype=torch.float64)
    for a, b in zip(outputs, expected, strict=True):
        a, b = _double(a), _double(b)
        # Per output: relative to the largest finite number of this tensor; equal infinities count as equal.
        scale = b.abs().nan_to_num(0, 0, 0).amax() if b.numel() else worst
        moved = torch.where(a == b, 0, (a - b).abs()) / scale.clamp_min(torch.finfo(torch.float64).tiny)
        worst = torch.maximum(worst, moved.amax()) if b.numel() else worst
    return worst.item()

"""Which tensors of a running network are rounded to integers: one set of rules, for training and for export.

A runtime computes an operator in integers where all it takes, and what it gives, is integers. So rounded are the inputs
and weights of convolutions and linear layers, both sides of a sum of such outputs (a residual), and what a convolution
gives before anything else looks at it; where an activation or a pooling comes between, after that, as runtimes fuse the
two (`Jacob et al. 2018 <https://arxiv.org/abs/1712.05877>`_, section 2.4 and appendix A). A tensor is rounded once,
however many look at it. Seen are functions rather than modules: a functional ReLU or a ``+`` is as good as a module.
"""

import types
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

Round = Callable[[str, Tensor, str], Tensor]
"""From the name of a tensor's site, the tensor and the layer that takes it, to the rounded tensor."""

RoundBias = Callable[[Tensor, str, str], Tensor]
"""From a bias and the sites of the input and the weight whose product it is added to, to the rounded bias."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
PRODUCTS = CONVOLUTIONS | {"linear"}
SUMS = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})

# What runtimes fuse into the operator before, or leave out: rounded is what they give.
PASSING = _words(
    """relu relu_ relu6 hardtanh hardtanh_ clamp clamp_ clamp_min clamp_min_ threshold threshold_
    dropout dropout_ dropout1d dropout2d dropout3d feature_dropout alpha_dropout contiguous clone detach to float"""
)

# What gives the very numbers that it takes, and what runtimes run on integers: rounded is what they take.
MOVING = _words(
    """max_pool1d max_pool2d max_pool3d flatten unflatten view view_as reshape reshape_as permute transpose movedim
    swapaxes squeeze unsqueeze"""
)

# The same, but what follows has to be told so: it is rounded again.
PARTING = _words(
    "cat chunk split narrow expand __getitem__ adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"
)

# What asks a tensor something rather than computing with it.
ASKING = _words(
    """__get__ __set__ size dim ndimension stride numel nelement element_size is_contiguous is_floating_point is_complex
    data_ptr storage_offset untyped_storage get_device requires_grad_ retain_grad register_hook backward
    __len__ __repr__ __format__ __hash__ __reduce_ex__ item tolist numpy type type_as"""
)


@dataclass
class _State:
    """What is known of a tensor.

    Args:
        kind: ``"rounded"``; ``"open"``: of integers, and to be rounded before anything looks at it; ``"soft"``: of
            integers, but runtimes may hand it on in float; ``"float"``.
        rounded: the tensor as it was rounded, if it was.
        site: where it was rounded, if it is.
        version: how often it had been written to.
    """

    kind: str = "float"
    rounded: Tensor | None = None
    site: str = ""
    version: int = 0


class Placement(TorchFunctionMode):
    """Rounds tensors inside one forward; :attr:`path` holds the names of the modules that run.

    Once :attr:`is_over` says so it rounds nothing any more. :attr:`inputs_of` holds for each weight's site that of what
    it is multiplied with.

    Args:
        round: called for each tensor that is to be rounded.
        owner_of: the name of the layer whose weight a tensor is, from the tensor and the layer that takes it; ``None``
            where it is computed from what the network was given.
        float_layers: names of modules that compute in float.
        round_bias: called for the bias of a product whose result is integers as well; default none is rounded.
    """

    def __init__(
        self,
        round: Round,
        owner_of: Callable[[Tensor, str], str | None],
        float_layers: Collection[str] = (),
        round_bias: RoundBias | None = None,
    ) -> None:
        super().__init__()
        self.path: list[str] = []
        self.is_over: Callable[[], bool] = lambda: False
        self.inputs_of: dict[str, str] = {}
        self._round_bias = round_bias
        self._round, self._owner_of, self._float_layers = round, owner_of, frozenset(float_layers)
        self._calls: Counter[str] = Counter()
        self._states: Any = WeakTensorKeyDictionary()

    def finish(self, result: Any) -> Any:
        """Return what the network gives, with convolutions' outputs in it rounded."""
        self.path.append("")
        return tree_map(lambda v: self._rounded(v, self._site("output")) if self._kind(v) == "open" else v, result)

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ASKING or self.is_over():
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:  # its linear layers are called inside
            with self:
                return _seen_through(func)(*args, **kwargs)
        if self._layer in self._float_layers:
            return self._other(func, name, args, kwargs)
        if name in PRODUCTS:
            return self._product(func, name, args, kwargs)
        if name in SUMS and self._is_of_integers(args, kwargs):
            return self._sum(func, name, args, kwargs)
        if name in PASSING and args:
            return self._pass(func, name, args, kwargs)
        if name in MOVING and args and self._kind(args[0]) in ("open", "rounded"):
            return self._move(func, name, args, kwargs)
        return self._other(func, name, args, kwargs)

    def _product(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        operands, args, kwargs = _taken(args, kwargs, ("input", "weight", "bias"))
        owner = self._owner_of(operands[1], self._layer)
        if owner is None or owner in self._float_layers:
            return self._other(func, name, (*operands, *args), kwargs)
        if _is_checkpointed():
            raise ValueError(
                f"{owner or 'The network'} expected to run once, but got activation checkpointing, which runs it again"
                " in the backward pass where nothing is rounded: turn that off while quantising."
            )
        self.path.append(owner)  # torch's attention takes the weights of a layer that it does not call
        try:
            inputs, weight, bias = self._operands(name, *operands)
        finally:
            self.path.pop()
        out = func(inputs, weight, bias, *args, **kwargs)
        if name in CONVOLUTIONS:
            self._know(out, "open")
        elif out.dim() == 2:  # of higher ranks is a product and a sum of its own, whose result mostly stays in float
            self._know(out, "soft")
        return out

    def _operands(self, name: str, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Any, Any, Any]:
        site = self._site(name)
        inputs, place = self._rounded(inputs, "input", site), f"{site}/weight"
        state = self._state(inputs)
        self.inputs_of[place] = state.site if state is not None else ""
        if bias is not None and self._round_bias is not None and (name in CONVOLUTIONS or inputs.dim() == 2):
            bias = self._round_bias(bias, self.inputs_of[place], place)
        return inputs, self._round(place, weight, self._layer), bias

    def _sum(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        (left, right), args, kwargs = _taken(args, kwargs, ("input", "other"))
        site = self._site("add")
        sides = self._rounded(left, "left", site), self._rounded(right, "right", site)
        out = torch.add(*sides, *args, **kwargs)
        if name in ("add_", "__iadd__"):  # other names of the tensor have to see it
            out = left.copy_(out)
        self._know(out, "open")
        return out

    def _pass(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state, writes = self._state(args[0]), _writes(name, kwargs)
        kind = state.kind if state is not None else "float"
        if kind == "open" and state is not None and state.rounded is not None and not writes:
            args = (state.rounded, *args[1:])  # a runtime has it in integers, and alone those
        out = func(*args, **kwargs)
        if writes:
            self._states.pop(args[0], None)
        if kind != "float" and isinstance(out, Tensor) and (out is not args[0] or writes):
            self._know(out, "soft" if kind == "soft" else "open")
        return out

    def _move(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Hand on the numbers of a rounded tensor as such."""
        inputs = self._rounded(args[0], "input0", self._site(name)) if self._kind(args[0]) == "open" else args[0]
        out, state = func(inputs, *args[1:], **kwargs), self._state(inputs)
        if state is not None and state.kind == "rounded":
            self._know(out, "rounded", state.site)
        return out

    def _other(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run what is no operator in integers: it takes what a convolution gives rounded, as it will there."""
        tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor) and v.is_floating_point()]
        soft = name in PARTING | MOVING and all(self._kind(v) != "float" for v in tensors)
        changes = bool(args) and isinstance(args[0], Tensor) and _writes(name, kwargs)
        if any(self._kind(v) == "open" for v in tensors):
            site = self._site(name)
            places = {id(v): place for place, v in enumerate(tensors)}

            def taken(value: Any) -> Any:
                if self._kind(value) != "open":
                    return value
                out = self._rounded(value, f"input{places[id(value)]}", site)
                # Other names of the tensor have to see what is written to it.
                return value.copy_(out) if changes and value is args[0] else out

            given, kwargs = tree_map(taken, (args, kwargs))
        else:
            given = args
        out = func(*given, **kwargs)
        if changes:
            self._states.pop(args[0], None)
        if soft:
            for value in tree_leaves(out):
                self._know(value, "soft")
        return out

    @property
    def _layer(self) -> str:
        return self.path[-1] if self.path else ""

    def _site(self, name: str) -> str:
        """Name this call of a function: by the module that calls it, and the how manieth of its calls it is."""
        site = "/".join(part for part in (self._layer.replace(".", "/"), name.strip("_")) if part)
        self._calls[site] += 1
        return site if self._calls[site] == 1 else f"{site}-{self._calls[site]}"

    def _know(self, value: Any, kind: str, site: str = "") -> None:
        if isinstance(value, Tensor) and value.is_floating_point():
            self._states[value] = _State(kind, site=site, version=_version(value))

    def _state(self, value: Any) -> _State | None:
        state = self._states.get(value) if isinstance(value, Tensor) else None
        if state is not None and state.version != _version(value):  # written to, perhaps by another name of it
            del self._states[value]
            return None
        return state

    def _kind(self, value: Any) -> str:
        state = self._state(value)
        return state.kind if state is not None else "float"

    def _is_of_integers(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether both sides of a sum come from integers: the sum is then one of integers as well."""
        sides = [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)][:2]
        if len(sides) < 2 or not all(isinstance(side, Tensor) for side in sides):
            return False
        states = [self._state(side) for side in sides]
        known = all(s is not None and (s.kind != "float" or s.rounded is not None) for s in states)
        return known and any(s.kind != "float" for s in states if s is not None)

    def _rounded(self, tensor: Tensor, operand: str, site: str = "") -> Tensor:
        state = self._state(tensor)
        if state is None:
            state = self._states[tensor] = _State(version=_version(tensor))
        if state.kind == "rounded":
            return tensor
        if state.rounded is None:
            name = f"{site}/{operand}" if site else operand
            out = self._round(name, tensor, self._layer)
            if out is tensor:  # stays in float
                state.kind = "float"
                return tensor
            self._know(out, "rounded", name)
            state.rounded = out
        return state.rounded


def owners_of_weights(network: nn.Module) -> Callable[[Tensor, str], str | None]:
    """Return what tells a network's weights from tensors that it computes, and whose weights they are.

    Args:
        network: whose parameters, and views of them, are weights; and what layers compute from them by
            ``torch.nn.utils.parametrize``.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2))
        >>> weight, owner_of = network[0].weight, owners_of_weights(network)
        >>> owner_of(weight, "0"), owner_of(weight.T, "0"), owner_of(weight * 2, "0")
        ('0', '0', None)
    """
    owners: dict[int, str] = {}
    computed = set()
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), name)
        if is_parametrized(module):
            computed.add(name)

    def owner_of(tensor: Tensor, layer: str) -> str | None:
        if layer in computed:
            return layer
        return owners.get(id(tensor), owners.get(id(tensor._base)))

    return owner_of


def _writes(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether a function writes to its first argument."""
    named_so = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i") or name == "__setitem__"
    return named_so or bool(kwargs.get("inplace"))


def _is_checkpointed() -> bool:
    """Whether ``torch.utils.checkpoint`` will run this again; its older way (``use_reentrant=True``) is not seen.

    Private name in use: what tells which hooks on saved tensors are set.
    """
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False) if torch.is_grad_enabled() else None
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _taken(args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...]) -> tuple[Any, Any, dict[str, Any]]:
    """Take the first arguments out, given by position, by name, or not at all."""
    first = [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]
    return first, args[len(names) :], {key: value for key, value in kwargs.items() if key not in names}


def _seen_through(function: Any) -> Any:
    """Return a function of ``torch.nn.functional`` that calls others even where a mode would take it as one.

    Private name in use: ``has_torch_function``, which such functions ask before they begin.
    """
    names = {**function.__globals__, "has_torch_function": lambda tensors: False}
    return types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)

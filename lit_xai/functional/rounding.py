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

# What rounding commutes with, or what runtimes fuse into the operator before: rounded is what they give.
PASSING = _words(
    """relu relu_ relu6 hardtanh hardtanh_ clamp clamp_ clamp_min clamp_min_ threshold threshold_
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    dropout dropout_ dropout1d dropout2d dropout3d feature_dropout alpha_dropout
    flatten unflatten view view_as reshape reshape_as permute transpose movedim swapaxes squeeze unsqueeze
    contiguous clone detach expand narrow chunk split __getitem__ to float"""
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
    """

    kind: str = "float"
    rounded: Tensor | None = None
    site: str = ""


class Placement(TorchFunctionMode):
    """Rounds tensors inside one forward; :attr:`path` holds the names of the modules that run.

    Args:
        round: called for each tensor that is to be rounded.
        is_weight: whether a tensor is a weight of a layer, not computed from what the network was given.
        float_layers: names of modules that compute in float.
        round_bias: called for the bias of a product whose result is integers as well; default none is rounded.
    """

    def __init__(
        self,
        round: Round,
        is_weight: Callable[[Tensor, str], bool],
        float_layers: Collection[str] = (),
        round_bias: RoundBias | None = None,
    ) -> None:
        super().__init__()
        self.path: list[str] = []
        self._round_bias = round_bias
        self._round, self._is_weight, self._float_layers = round, is_weight, frozenset(float_layers)
        self._calls: Counter[str] = Counter()
        self._states: Any = WeakTensorKeyDictionary()

    def finish(self, result: Any) -> Any:
        """Return what the network gives, with convolutions' outputs in it rounded."""
        self.path.append("")
        return tree_map(
            lambda v: self._rounded(v, "output") if isinstance(v, Tensor) and self._kind(v) == "open" else v, result
        )

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is F.multi_head_attention_forward:  # its linear layers are called inside
            with self:
                return _seen_through(func)(*args, **kwargs)
        if name in ASKING:
            return func(*args, **kwargs)
        if self._layer in self._float_layers:
            return self._other(func, name, args, kwargs)
        if name in PRODUCTS:
            return self._product(func, name, args, kwargs)
        if name in SUMS and self._is_of_integers(args, kwargs):
            return self._sum(func, name, args, kwargs)
        if name in PASSING and args:
            return self._pass(func, name, args, kwargs)
        return self._other(func, name, args, kwargs)

    def _product(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        (inputs, weight, bias), args, kwargs = _taken(args, kwargs, ("input", "weight", "bias"))
        site = self._site(name)
        if not self._is_weight(weight, self._layer):
            return self._other(func, name, (inputs, weight, bias, *args), kwargs)
        inputs = self._rounded(inputs, "input", site)
        state = self._states.get(inputs)
        if bias is not None and self._round_bias is not None and (name in CONVOLUTIONS or inputs.dim() == 2):
            bias = self._round_bias(bias, state.site, f"{site}/weight")
        out = func(inputs, self._round(f"{site}/weight", weight, self._layer), bias, *args, **kwargs)
        if name in CONVOLUTIONS:
            self._states[out] = _State("open")
        elif out.dim() == 2:  # of higher ranks is a product and a sum of its own, whose result mostly stays in float
            self._states[out] = _State("soft")
        return out

    def _sum(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        (left, right), args, kwargs = _taken(args, kwargs, ("input", "other"))
        site = self._site("add")
        sides = self._rounded(left, "left", site), self._rounded(right, "right", site)
        out = torch.add(*sides, *args, **kwargs)
        if name in ("add_", "__iadd__"):  # other names of the tensor have to see it
            out = left.copy_(out)
        self._states[out] = _State("open")
        return out

    def _pass(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kind = self._kind(args[0])
        out = func(*args, **kwargs)
        if kind != "float":
            for value in tree_leaves(out):
                if isinstance(value, Tensor) and (value is not args[0] or name.endswith("_")):
                    self._states[value] = _State("soft" if kind == "soft" else "open")
        return out

    def _other(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run what is no operator in integers: it takes what a convolution gives rounded, as it will there."""
        tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        soft = name == "cat" and all(self._kind(v) != "float" for v in tensors)
        changes = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
        if any(self._kind(v) == "open" for v in tensors) and not changes:
            site = self._site(name)
            places = {id(v): place for place, v in enumerate(tensors)}
            args, kwargs = tree_map(
                lambda v: (
                    self._rounded(v, f"input{places[id(v)]}", site)
                    if isinstance(v, Tensor) and self._kind(v) == "open"
                    else v
                ),
                (args, kwargs),
            )
        out = func(*args, **kwargs)
        if changes and args and isinstance(args[0], Tensor):
            self._states.pop(args[0], None)
        if soft:
            self._states[out] = _State("soft")
        return out

    @property
    def _layer(self) -> str:
        return self.path[-1] if self.path else ""

    def _site(self, name: str) -> str:
        """Name this call of a function: by the module that calls it, and the how manieth of its calls it is."""
        site = "/".join(part for part in (self._layer.replace(".", "/"), name.strip("_")) if part)
        self._calls[site] += 1
        return site if self._calls[site] == 1 else f"{site}-{self._calls[site]}"

    def _kind(self, value: Any) -> str:
        state = self._states.get(value) if isinstance(value, Tensor) else None
        return state.kind if state is not None else "float"

    def _is_of_integers(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether both sides of a sum come from integers: the sum is then one of integers as well."""
        sides = [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)][:2]
        if len(sides) < 2 or not all(isinstance(side, Tensor) for side in sides):
            return False
        states = [self._states.get(side) for side in sides]
        known = all(s is not None and (s.kind != "float" or s.rounded is not None) for s in states)
        return known and any(s.kind in ("open", "soft") for s in states)

    def _rounded(self, tensor: Tensor, operand: str, site: str = "") -> Tensor:
        state = self._states.get(tensor)
        if state is None:
            state = self._states[tensor] = _State()
        if state.kind == "rounded":
            return tensor
        if state.rounded is None:
            name = f"{site}/{operand}" if site else operand
            out = self._round(name, tensor, self._layer)
            if out is tensor:  # stays in float
                state.kind = "float"
                return tensor
            self._states[out] = _State("rounded", site=name)
            state.rounded = out
        return state.rounded


def is_known_weight(network: nn.Module) -> Callable[[Tensor, str], bool]:
    """Return what tells a network's weights from tensors that it computes.

    Args:
        network: whose parameters, and views of them, are weights; and what layers compute from them by
            ``torch.nn.utils.parametrize``.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> is_known_weight(layer)(layer.weight, ""), is_known_weight(layer)(layer.weight * 2, "")
        (True, False)
    """
    parameters = {id(p) for p in network.parameters()}
    computed = {name for name, module in network.named_modules() if is_parametrized(module)}

    def is_weight(tensor: Tensor, layer: str) -> bool:
        return id(tensor) in parameters or id(tensor._base) in parameters or layer in computed

    return is_weight


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

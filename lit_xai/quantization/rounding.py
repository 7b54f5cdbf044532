"""The rules by which tensors of a running network are quantized, the same for training and for export.

A runtime computes an operator in integers if all its operands are integers. So what is quantized are the inputs and
weights of convolutions and linear layers, both sides of a sum of such outputs (a residual connection), and the output
of a convolution before any other operator takes it; if an activation or a pooling follows, after that, as runtimes fuse
the two (`Jacob et al. 2018 <https://arxiv.org/abs/1712.05877>`_, section 2.4 and appendix A). A tensor is quantized
once, however many operators take it.

Tables of embeddings are stored as integers as well, and the rows that are looked up become floats again: that makes the
file smaller, and computes nothing in integers.

The rules apply to functions rather than modules: a functional ReLU or a ``+`` counts as much as a module.
"""

import types
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from lit_xai.network.trees import leaves, replaced
from lit_xai.quantization.tables import Lookup

Quantize = Callable[[str, Tensor, str], Tensor]
"""From the name of a tensor's site, the tensor and the layer that takes it, to the quantized tensor."""

QuantizeBias = Callable[[Tensor, str, str], Tensor]
"""From a bias and the sites of the input and the weight whose product it is added to, to the quantized bias."""

QuantizeRows = Callable[[str, Lookup, str], Tensor]
"""From the name of a table's site, what is looked up in it and the layer that does, to the quantized rows."""


Place = tuple[str, str, int, str]
"""The module that calls a function, the function's name, the number of the call, and the operand."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
PRODUCTS = CONVOLUTIONS | {"linear"}
LOOKUP = F.embedding.__name__
SUMS = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})

# Runtimes fuse these into the operator before them, or leave them out: their output is quantized, not their input.
FUSED = _words(
    """relu relu_ relu6 hardtanh hardtanh_ clamp clamp_ clamp_min clamp_min_ threshold threshold_
    dropout dropout_ dropout1d dropout2d dropout3d feature_dropout alpha_dropout contiguous clone detach to float"""
)

# These return the very numbers that they take, and runtimes execute them on integers: their input is quantized.
SELECTING = _words(
    """max_pool1d max_pool2d max_pool3d flatten unflatten view view_as reshape reshape_as permute transpose movedim
    swapaxes squeeze unsqueeze"""
)

# The same, but runtimes do not carry the integers through: what follows is quantized again.
REQUANTIZED = _words(
    "cat chunk split narrow expand __getitem__ adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"
)

# These query a tensor rather than compute with it.
QUERIES = _words(
    """__get__ __set__ size dim ndimension stride numel nelement element_size is_contiguous is_floating_point is_complex
    is_inference data_ptr storage_offset untyped_storage get_device requires_grad_ retain_grad register_hook backward
    __len__ __repr__ __format__ __hash__ __reduce_ex__ item tolist numpy type type_as"""
)


class _Kind(Enum):
    """The form in which a runtime has a tensor."""

    FLOAT = "float"
    QUANTIZED = "integers"
    PENDING = "the output of an operator in integers, to be quantized before the next operator takes it"
    LIKELY = "the output of an operator in integers, which some runtimes keep in float"


@dataclass
class _State:
    """The state of one tensor during the forward.

    Args:
        kind: the form in which a runtime has it.
        quantized: the tensor after quantization, if it was quantized.
        site: where it was quantized, for a quantized tensor.
        version: how often it had been written to.
        source: the layer whose output it is, if only fused operators came after; of a sum, that of its newer term.
    """

    kind: _Kind = _Kind.FLOAT
    quantized: Tensor | None = None
    site: str = ""
    version: int = 0
    source: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether it was quantized already, for another operator."""
        return self.kind is _Kind.QUANTIZED or self.quantized is not None

    @property
    def is_of_integers(self) -> bool:
        """Whether an operator can take it as integers."""
        return self.kind is not _Kind.FLOAT or self.quantized is not None


class Placement(TorchFunctionMode):
    """Quantize tensors inside one forward; :attr:`path` holds the names of the modules that run.

    Once :attr:`is_over` returns True, nothing is quantized any more. :attr:`inputs_of` maps the site of each weight to
    the site of the input that it is multiplied with, :attr:`layer_of` each site to the layer because of which its
    tensor is quantized: the one that computed it, where runtimes cannot fuse that otherwise, or the one that takes it.
    :attr:`place_of` maps each site to a place in the forward that does not depend on what else is quantized, as the
    number in a site's name does: the calling module, the function, the number of the call among all, and the operand.

    Args:
        quantize: called for each tensor to quantize.
        owner_of: returns the name of the layer whose weight a tensor is, from the tensor and the layer that takes it;
            ``None`` if the tensor was computed from the network's inputs.
        float_layers: names of modules that compute in float.
        quantize_bias: called for the bias of a product whose output is integers as well; default none is quantized.
        passing: names of the BatchNorms that will be folded into the layer before them: what they compute counts as
            that layer's output.
        quantize_rows: called for what is looked up in a table; default tables stay in float.
    """

    def __init__(
        self,
        quantize: Quantize,
        owner_of: Callable[[Tensor, str], str | None],
        float_layers: Collection[str] = (),
        quantize_bias: QuantizeBias | None = None,
        passing: Collection[str] = (),
        quantize_rows: QuantizeRows | None = None,
    ) -> None:
        super().__init__()
        self.path: list[str] = []
        self.is_over: Callable[[], bool] = lambda: False
        self.inputs_of: dict[str, str] = {}
        self.layer_of: dict[str, str] = {}
        self.place_of: dict[str, Place] = {}
        self.passing = frozenset(passing)
        self._quantize_bias, self._quantize_rows = quantize_bias, quantize_rows
        self._quantize, self._owner_of, self._float_layers = quantize, owner_of, frozenset(float_layers)
        self._calls: Counter[str] = Counter()
        self._all_calls: Counter[tuple[str, str]] = Counter()
        self._call = ("", "output", 1)
        # By the tensor's identity, without keeping it alive: a forward's activations are freed as they would be without
        # this mode.
        self._states: Any = WeakTensorKeyDictionary()

    def finish(self, result: Any) -> Any:
        """Return the network's result, with convolutions' outputs in it quantized."""
        self.path.append("")
        self._call = ("", "output", 1)
        pending = {path: value for path, value in leaves(result) if self._kind(value) is _Kind.PENDING}
        quantized = {path: self._quantized(value, self._site("output")) for path, value in pending.items()}
        return replaced(result, quantized) if quantized else result

    def pass_on(self, inputs: Any, result: Any) -> None:
        """Have a BatchNorm's result count as the output of the layer before it, which it will be folded into."""
        kind = self._kind(inputs)
        # Not of another tensor that happens to be quantized: normalized, it is on its grid no more.
        if kind in (_Kind.PENDING, _Kind.LIKELY):
            self._set_kind(result, kind, source=self._source(inputs))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        # A query must not quantize a pending tensor: nothing is computed with it.
        if name in QUERIES or self.is_over():
            return func(*args, **kwargs)
        if self._layer in self.passing:
            out = func(*args, **kwargs)
            self.pass_on(next(iter((*args, *kwargs.values())), None), out)
            return out
        if func is F.multi_head_attention_forward:  # its linear layers are called inside
            with self:
                return _seen_through(func)(*args, **kwargs)
        self._all_calls[self._layer, name] += 1
        self._call = (self._layer, name, self._all_calls[self._layer, name])
        return self._rule(name, args, kwargs)(func, name, args, kwargs)

    def _rule(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any]:
        """Return the method that runs a function of this name on these arguments."""
        if self._layer in self._float_layers:
            return self._run_in_float
        if name in PRODUCTS:
            return self._run_product
        if name in SUMS and self._adds_integers(args, kwargs):
            return self._run_sum
        if name == LOOKUP:
            return self._run_lookup
        if name in FUSED and args:
            return self._run_fused
        if name in SELECTING and args and self._kind(args[0]) in (_Kind.PENDING, _Kind.QUANTIZED):
            return self._run_selecting
        return self._run_in_float

    def _run_product(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        operands, args, kwargs = _taken(args, kwargs, ("input", "weight", "bias"))
        owner = self._owner_of(operands[1], self._layer)
        # A weight that was computed from the inputs cannot be stored as integers.
        if owner is None or owner in self._float_layers:
            return self._run_in_float(func, name, (*operands, *args), kwargs)
        if _is_checkpointed():
            raise ValueError(
                f"{owner or 'The network'} expected to run once, but got activation checkpointing, which runs it again"
                " in the backward pass, where nothing is quantized: turn it off for quantization."
            )
        self.path.append(owner)  # torch's attention uses the weights of a layer without calling it
        try:
            inputs, weight, bias = self._operands(name, *operands)
        finally:
            self.path.pop()
        out = func(inputs, weight, bias, *args, **kwargs)
        if name in CONVOLUTIONS:
            self._set_kind(out, _Kind.PENDING, source=owner)
        elif out.dim() == 2:  # of higher rank it is exported as a product and a sum, whose output mostly stays in float
            self._set_kind(out, _Kind.LIKELY, source=owner)
        return out

    def _operands(self, name: str, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Any, Any, Any]:
        site = self._site(name)
        inputs, place = self._quantized(inputs, "input", site), f"{site}/weight"
        state = self._state(inputs)
        self.inputs_of[place] = state.site if state is not None else ""
        if bias is not None and self._quantize_bias is not None and (name in CONVOLUTIONS or inputs.dim() == 2):
            bias = self._quantize_bias(bias, self.inputs_of[place], place)
        self.layer_of[place], self.place_of[place] = self._layer, (*self._call, "weight")
        return inputs, self._quantize(place, weight, self._layer), bias

    def _run_lookup(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look up rows of a table in float, and quantize them, as the table will be stored."""
        rows = self._run_in_float(func, name, args, kwargs)
        (ids, table, _, max_norm), _, _ = _taken(args, kwargs, ("input", "weight", "padding_idx", "max_norm"))
        owner = self._owner_of(table, self._layer)
        # With max_norm a lookup writes to the table, of which a file holds one version.
        if func is not F.embedding or owner is None or owner in self._float_layers or max_norm is not None:
            return rows
        if self._quantize_rows is None:
            return rows
        self.path.append(owner)
        place = f"{self._site(name)}/weight"
        self.path.pop()
        self.layer_of[place], self.place_of[place] = owner, (*self._call, "weight")
        return self._quantize_rows(place, Lookup(ids, table, rows), owner)

    def _run_sum(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        (left, right), args, kwargs = _taken(args, kwargs, ("input", "other"))
        site, source = self._site("add"), self._newer(left, right)
        sides = self._quantized(left, "left", site), self._quantized(right, "right", site)
        out = torch.add(*sides, *args, **kwargs)
        if name in ("add_", "__iadd__"):  # views of the tensor have to see the sum
            out = left.copy_(out)
        self._set_kind(out, _Kind.PENDING, source=source)
        return out

    def _newer(self, left: Tensor, right: Tensor) -> str:
        """Return the layer that computed the side of a sum that nothing else has taken yet: the branch's last."""
        states = [state for state in map(self._state, (left, right)) if state is not None and state.source]
        return min(states, key=lambda state: state.is_taken, default=_State()).source

    def _run_fused(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state, writes = self._state(args[0]), _writes(name, kwargs)
        kind, source = self._kind(args[0]), self._source(args[0])
        if kind is _Kind.PENDING and state is not None and state.quantized is not None and not writes:
            args = (state.quantized, *args[1:])  # another operator had it quantized: a runtime keeps only the integers
        out = func(*args, **kwargs)
        # The tensor holds other numbers now.
        if writes:
            self._states.pop(args[0], None)
        if kind is not _Kind.FLOAT and isinstance(out, Tensor) and (out is not args[0] or writes):
            self._set_kind(out, _Kind.LIKELY if kind is _Kind.LIKELY else _Kind.PENDING, source=source)
        return out

    def _run_selecting(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function on integers; its output needs no quantization of its own."""
        is_pending = self._kind(args[0]) is _Kind.PENDING
        inputs = self._quantized(args[0], "input0", self._site(name)) if is_pending else args[0]
        out, state = func(inputs, *args[1:], **kwargs), self._state(inputs)
        # Selected values lie on the same grid, and share the site's scale.
        if state is not None and state.kind is _Kind.QUANTIZED:
            self._set_kind(out, _Kind.QUANTIZED, state.site, state.source)
        return out

    def _run_in_float(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator in float; outputs of convolutions it takes quantized, as it will in a runtime."""
        tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor) and v.is_floating_point()]
        # Before the function runs: an in-place one changes what is known of its arguments.
        keeps_integers = name in REQUANTIZED | SELECTING and all(self._kind(v) is not _Kind.FLOAT for v in tensors)
        source = next((self._source(v) for v in tensors), "")
        target = args[0] if args and isinstance(args[0], Tensor) and _writes(name, kwargs) else None
        if any(self._kind(v) is _Kind.PENDING for v in tensors):
            args, kwargs = self._quantize_pending(name, tensors, (args, kwargs), target)
        out = func(*args, **kwargs)
        if target is not None:
            self._states.pop(target, None)
        if keeps_integers:
            for value in tree_leaves(out):
                self._set_kind(value, _Kind.LIKELY, source=source)
        return out

    def _quantize_pending(self, name: str, tensors: list[Tensor], arguments: Any, target: Tensor | None) -> Any:
        """Return arguments with the pending tensors among them quantized.

        Args:
            name: of the function.
            tensors: all tensors of floats among the arguments, which are numbered in this order.
            arguments: positional ones and those by name.
            target: the argument that the function writes to, if it does.
        """
        site = self._site(name)
        places = {id(v): place for place, v in enumerate(tensors)}

        def quantized(value: Any) -> Any:
            if self._kind(value) is not _Kind.PENDING:
                return value
            out = self._quantized(value, f"input{places[id(value)]}", site)
            # Written into the same memory, as views of the tensor have to see what the function writes.
            return target.copy_(out) if target is not None and value is target else out

        return tree_map(quantized, arguments)

    @property
    def _layer(self) -> str:
        return self.path[-1] if self.path else ""

    def _site(self, name: str) -> str:
        """Return a name for this call of a function: the calling module, the function and the number of the call."""
        # Names are keys of modules in checkpoints and may not hold a dot.
        site = "/".join(part for part in (self._layer.replace(".", "/"), name.strip("_")) if part)
        self._calls[site] += 1
        return site if self._calls[site] == 1 else f"{site}-{self._calls[site]}"

    def _set_kind(self, value: Any, kind: _Kind, site: str = "", source: str = "") -> None:
        if isinstance(value, Tensor) and value.is_floating_point():
            self._states[value] = _State(kind, site=site, version=_version(value), source=source)

    def _source(self, value: Any) -> str:
        state = self._state(value)
        return state.source if state is not None else ""

    def _state(self, value: Any) -> _State | None:
        state = self._states.get(value) if isinstance(value, Tensor) else None
        if state is not None and state.version != _version(value):  # written to since, perhaps through a view
            del self._states[value]
            return None
        return state

    def _kind(self, value: Any) -> _Kind:
        state = self._state(value)
        return state.kind if state is not None else _Kind.FLOAT

    def _adds_integers(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether both sides of a sum come from integers, so that the sum is one of integers as well."""
        sides, _, _ = _taken(args, kwargs, ("input", "other"))
        states = [self._state(side) for side in sides]
        if not all(state is not None and state.is_of_integers for state in states):
            return False
        # At least one side has to be an integer operator's output: two tensors that are only quantized for other
        # operators are added in float.
        return any(state.kind is not _Kind.FLOAT for state in states if state is not None)

    def _quantized(self, tensor: Tensor, operand: str, site: str = "") -> Tensor:
        """Return a tensor after quantization, which is done at the first call and remembered."""
        state = self._state(tensor)
        if state is None:
            state = self._states[tensor] = _State(version=_version(tensor))
        if state.kind is _Kind.QUANTIZED:
            return tensor
        if state.quantized is None:
            name = f"{site}/{operand}" if site else operand
            # What a convolution returns is quantized whoever takes it, what a linear layer returns only for the next
            # product, or for a sum, which is one of integers because of its terms.
            is_of_source = state.kind is _Kind.PENDING or operand in ("left", "right")
            self.layer_of[name] = state.source if state.source and is_of_source else self._layer
            self.place_of[name] = (*self._call, operand)
            out = self._quantize(name, tensor, self._layer)
            if out is tensor:  # it has no site and stays in float
                state.kind = _Kind.FLOAT
                return tensor
            self._set_kind(out, _Kind.QUANTIZED, name, state.source)
            state.quantized = out
        return state.quantized


def owners_of_weights(network: nn.Module) -> Callable[[Tensor, str], str | None]:
    """Return a function that gives the layer of a weight, and ``None`` for tensors that the network computes.

    Args:
        network: the module. Its parameters and views of them are weights, and so is what layers compute from
            parameters by ``torch.nn.utils.parametrize``.

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
            # setdefault: a tied weight belongs to the first layer that holds it.
            owners.setdefault(id(parameter), name)
        if is_parametrized(module):
            computed.add(name)

    def owner_of(tensor: Tensor, layer: str) -> str | None:
        # A parametrized weight is a new tensor at each access, so it cannot be found by identity.
        if layer in computed:
            return layer
        # A view (`weight.T`, `weight[:n]`) has the parameter as its base.
        return owners.get(id(tensor), owners.get(id(tensor._base)))

    return owner_of


def _writes(name: str, kwargs: dict[str, Any]) -> bool:
    """Return whether a function writes to its first argument."""
    by_name = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i") or name == "__setitem__"
    return by_name or bool(kwargs.get("inplace"))


def _is_checkpointed() -> bool:
    """Return whether ``torch.utils.checkpoint`` will run this again; ``use_reentrant=True`` is not detected.

    Uses a private function of torch, the only one that returns which hooks on saved tensors are set.
    """
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False) if torch.is_grad_enabled() else None
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


def _version(tensor: Tensor) -> int:
    # Inference tensors count no versions, and raise if asked.
    return 0 if tensor.is_inference() else tensor._version


def _taken(args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...]) -> tuple[Any, Any, dict[str, Any]]:
    """Split off the arguments of these names, given by position, by name, or not at all (``None``)."""
    first = [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]
    return first, args[len(names) :], {key: value for key, value in kwargs.items() if key not in names}


def _seen_through(function: Any) -> Any:
    """Return a function of ``torch.nn.functional`` whose inner calls a mode sees, rather than the one outer call.

    Such functions first call the private ``has_torch_function`` to decide whether to dispatch to the mode: the copy
    here gets one that returns False.
    """
    names = {**function.__globals__, "has_torch_function": lambda tensors: False}
    return types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)

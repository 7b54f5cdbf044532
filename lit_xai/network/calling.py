"""The network and its call: one answer for explaining, teaching, tracing and exporting.

Four questions, four functions: :func:`find_network` (which module), :func:`find_inputs` (its inputs in a batch),
:func:`call_network` (the call), :func:`~lit_xai.network.outputs.find_logits` (the logits in its output). Every callback
of the library takes the answers as ``module``, ``batch_to_inputs`` and ``output``, and infers the usual ones where they
are left out.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from lit_xai.network.arguments import Arguments, Inputs, elements
from lit_xai.network.describing import describe
from lit_xai.network.import_path import load_object
from lit_xai.network.outputs import OutputSpec, find_logits
from lit_xai.network.spelling import nearest
from lit_xai.network.trees import leaves, with_own_containers

BatchToInputs: TypeAlias = int | str | Sequence[int | str] | Callable[[Any], Inputs] | None
BatchToTarget: TypeAlias = int | str | Callable[[Any], Any] | None

# Modules of torch and Lightning whose `forward` a module inherits if it defines none; it only raises.
_UNDEFINED = ("torch.nn.modules.module", "lightning.pytorch.core.module", "pytorch_lightning.core.module")

LABEL_KEYS = ("label", "labels", "y", "target", "targets")


def find_network(root: nn.Module, module: str | None = None) -> nn.Module:
    """Return the submodule of ``root`` called ``module``, or ``root`` itself, behind any ``torch.compile`` wrapper.

    Args:
        root: usually the LightningModule.
        module: a dotted name as in ``root.named_modules()``.

    Raises:
        ValueError: no submodule has that name (the nearest names are suggested).

    Example:
        >>> find_network(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "1")
        ReLU()
    """
    root = _uncompiled(root)
    if not module:
        return root
    names = module_names(root)
    if not isinstance(module, str) or module not in names:
        raise ValueError(
            f"module={module!r} names no part of {type(root).__name__}.{nearest(str(module), names)}"
            f" Its direct parts are {[name for name, _ in root.named_children()]}."
        )
    return names[module]


def module_names(root: nn.Module, aliases: bool = False) -> dict[str, nn.Module]:
    """Return every submodule by name, without ``torch.compile``'s wrappers in names and modules.

    Args:
        root: the module.
        aliases: whether a submodule that has several names stands under each of them, rather than under the first.

    Example:
        >>> list(module_names(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))
        ['0', '1']
    """
    return {
        name.replace("._orig_mod", ""): _uncompiled(m)
        for name, m in root.named_modules(remove_duplicate=not aliases)
        if name
    }


def plain_name(name: str) -> str:
    """Return the name of a module, parameter or buffer without ``torch.compile``'s wrappers in it.

    Example:
        >>> plain_name("network._orig_mod.0.weight")
        'network.0.weight'
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod") if "_orig_mod" in name else name


def _uncompiled(module: nn.Module) -> nn.Module:
    # The wrapper that torch.compile(module) returns holds the original under this name.
    return getattr(module, "_orig_mod", module)


def find_call(network: nn.Module, call: str = "forward") -> Callable[..., Any]:
    """Return the network's method called ``call``.

    Raises:
        ValueError: the network has no such method, or has not defined its forward.

    Example:
        >>> find_call(nn.Linear(4, 2), "forwrad")
        Traceback (most recent call last):
        ...
        ValueError: call='forwrad' is no method of Linear. Did you mean 'forward'?
    """
    function = getattr(network, call, None)
    if not callable(function):
        public = [name for name in dir(network) if not name.startswith("_")]
        raise ValueError(f"call={call!r} is no method of {type(network).__name__}.{nearest(call, public)}")
    if not defines_call(network, call):
        raise ValueError(
            f"{type(network).__name__} defines no {call}(): name the network inside it with module=, one of"
            f" {[name for name, _ in network.named_children()]}."
        )
    return function


def defines_call(network: nn.Module, call: str = "forward") -> bool:
    """Return whether a network defines the method it is called by: LightningModules may leave out ``forward``.

    Example:
        >>> defines_call(nn.Linear(2, 2)), defines_call(nn.ModuleList())
        (True, False)
    """
    return not (getattr(getattr(network, call, None), "__module__", None) or "").startswith(_UNDEFINED)


def find_inputs(
    batch: Any,
    network: nn.Module,
    batch_to_inputs: BatchToInputs = None,
    call: str = "forward",
    example_inputs: Inputs | None = None,
) -> Inputs:
    """Return the network's inputs in a batch.

    By default the tensor if the batch is one; of a tuple the first element (the first ``k`` where the call requires
    ``k`` positional arguments); of a dict the keys that the call accepts, or the only tensor (for a module of torch's
    own, the only floating one), labels left out.

    Args:
        batch: as the data loader yields it.
        network: the module that is called.
        batch_to_inputs: a key or index (``"image"``, ``0``), several (``["user", "item"]``), a function of the batch,
            or such a function's import path (with a dot in it).
        call: the method that is called.
        example_inputs: a fallback, such as ``LightningModule.example_input_array``.

    Raises:
        ValueError: the batch holds no usable inputs; describes the batch and names the argument to set.

    Example:
        >>> import torch
        >>> network = nn.Linear(4, 2)
        >>> find_inputs((torch.zeros(8, 4), torch.zeros(8)), network).shape
        torch.Size([8, 4])
        >>> find_inputs({"image": torch.zeros(8, 4), "label": torch.zeros(8)}, network).shape
        torch.Size([8, 4])
    """
    if batch_to_inputs is not None:
        return _select_inputs(batch, batch_to_inputs, network, call)
    names, required, _ = _parameters(network, call)
    inputs: Any = batch
    if isinstance(inputs, (tuple, list)) and inputs:
        inputs = tuple(inputs[:required]) if _takes_several(inputs, required) else inputs[0]
    if isinstance(inputs, Mapping):
        inputs = _inputs_in_dict(inputs, network, call)
    if isinstance(inputs, list):
        inputs = tuple(inputs)
    if isinstance(inputs, (Tensor, tuple, dict)) and _holds_tensors(inputs):
        return inputs
    if example_inputs is not None:
        return example_inputs
    raise ValueError(
        f"No inputs for {type(network).__name__}.{call}({', '.join(names)}) were found in a batch of"
        f" {describe(batch)}: name them with batch_to_inputs=, as a key, an index, several of them, or a function."
    )


def _inputs_in_dict(batch: Mapping[str, Any], network: nn.Module, call: str) -> Any:
    names, required, open_ended = _parameters(network, call)
    data = {key: value for key, value in batch.items() if key not in LABEL_KEYS}
    accepted = {key: value for key, value in data.items() if key in names}
    if accepted:
        return accepted
    tensors = {key: value for key, value in data.items() if isinstance(value, Tensor)}
    # A module of torch's own takes no dict: of image and index, say, it is given the image.
    given = {k: v for k, v in tensors.items() if v.is_floating_point()} if _is_torchs(network, call) else tensors
    if len(given) == 1 and not _takes_dict(network, call):
        return next(iter(given.values()))
    if open_ended:
        return tensors
    # forward(self, batch) reads its keys from one dict, so it gets the whole batch, labels included.
    return dict(batch) if required == 1 else None


def _is_torchs(network: nn.Module, call: str) -> bool:
    return (getattr(getattr(network, call, None), "__module__", None) or "").startswith("torch.")


def _takes_dict(network: nn.Module, call: str) -> bool:
    """Return whether the first parameter is a dict by its annotation, or by a name that stands for a whole batch."""
    first = next(iter(inspect.signature(getattr(network, call)).parameters.values()), None)
    if first is None or first.kind is first.VAR_POSITIONAL:
        return False
    if first.kind is first.VAR_KEYWORD:  # it cannot be called with a tensor
        return True
    if first.annotation is not first.empty:
        return any(word in str(first.annotation) for word in ("dict", "Dict", "Mapping", "TypedDict"))
    return first.name in ("batch", "data", "sample", "samples", "example", "features")


def _takes_several(batch: Any, required: int) -> bool:
    # ((user, item), label) holds its inputs in the first element, (user, item, label) in the first two.
    return required > 1 and len(batch) >= required and not isinstance(batch[0], (tuple, list, Mapping))


def _select_inputs(batch: Any, spec: Any, network: nn.Module, call: str) -> Inputs:
    # A key of the batch wins over an import path: keys may hold dots.
    is_path = isinstance(spec, str) and "." in spec and not (isinstance(batch, Mapping) and spec in batch)
    function = load_object(spec, "batch_to_inputs") if is_path else spec
    if callable(function):
        inputs = function(batch)
    elif isinstance(spec, (str, int)):
        inputs = _item(batch, spec)
    else:
        inputs = _several_items(batch, spec, network, call)
    if not _holds_tensors(inputs):
        raise ValueError(f"batch_to_inputs={spec!r} expected to give tensors, but got {describe(inputs)}.")
    if isinstance(inputs, (Tensor, tuple, Arguments)):
        return inputs
    if isinstance(inputs, list):
        return tuple(inputs)
    # An object that holds tensors, such as a graph, is one argument.
    return dict(inputs) if isinstance(inputs, Mapping) else (inputs,)


def _several_items(batch: Any, keys: Sequence[int | str], network: nn.Module, call: str) -> Any:
    """Return items as keyword arguments where the call accepts all of their names, and else as positional ones."""
    items = {key: _item(batch, key) for key in keys}
    names, _, open_ended = _parameters(network, call)
    by_name = all(isinstance(key, str) and (open_ended or key in names) for key in items)
    return items if by_name else tuple(items.values())


def _item(batch: Any, key: str | int, argument: str = "batch_to_inputs") -> Any:
    try:
        # Batches of some libraries are objects that hold their tensors as attributes, such as a graph.
        return getattr(batch, key) if isinstance(key, str) and not isinstance(batch, Mapping) else batch[key]
    except (KeyError, IndexError, TypeError, AttributeError):
        known = [str(k) for k in batch] if isinstance(batch, Mapping) else []
        raise ValueError(
            f"{argument}={key!r} is not in a batch of {describe(batch)}.{nearest(str(key), known)}"
        ) from None


def _parameters(network: nn.Module, call: str) -> tuple[list[str], int, bool]:
    """Return the names of the call's parameters, the number of required ones, and whether it takes any keyword."""
    parameters = inspect.signature(find_call(network, call)).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    return names, required, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _holds_tensors(inputs: Any) -> bool:
    return any(True for _ in leaves(inputs))


def find_labels(
    batch: Any, network: nn.Module | None = None, call: str = "forward", batch_to_target: BatchToTarget = None
) -> Tensor | None:
    """Return the labels in a batch, or ``None`` if they are in none of the usual places.

    Of a dict the key ``label``, ``labels``, ``y``, ``target`` or ``targets``; of a tuple the element after the inputs
    (the second, or later where the call requires several arguments).

    Args:
        batch: as the data loader yields it.
        network: the module that is called; its number of required arguments tells where the labels follow.
        call: the method that is called.
        batch_to_target: where they are instead: a key, an index, a function of the batch, or such a function's import
            path (with a dot in it); a function returns ``None`` of a batch without labels.

    Raises:
        ValueError: there is no tensor at ``batch_to_target``, or the function fails; describes the batch.

    Example:
        >>> import torch
        >>> find_labels((torch.zeros(8, 4), torch.arange(8)))
        tensor([0, 1, 2, 3, 4, 5, 6, 7])
        >>> find_labels({"image": torch.zeros(2, 4), "digit": torch.arange(2)}, batch_to_target="digit")
        tensor([0, 1])
    """
    labels = find_targets(batch, network, call, batch_to_target)
    is_missing = labels is None and not callable(batch_to_target) and not _is_path(batch, batch_to_target)
    if batch_to_target is not None and not isinstance(labels, Tensor) and (labels is not None or is_missing):
        raise ValueError(f"batch_to_target={batch_to_target!r} expected to give a tensor, but got {describe(labels)}.")
    return labels if isinstance(labels, Tensor) else None


def find_targets(
    batch: Any, network: nn.Module | None = None, call: str = "forward", batch_to_target: BatchToTarget = None
) -> Any:
    """Return the labels in a batch in any form, as a metric of one's own takes them: a list of a detector's boxes, say.

    Args:
        batch: as the data loader yields it.
        network: see :func:`find_labels`, as are all others.
        call: the method that is called.
        batch_to_target: where they are, if in none of the usual places.

    Raises:
        ValueError: there is nothing at ``batch_to_target``, or the function fails; describes the batch.

    Example:
        >>> import torch
        >>> find_targets((torch.zeros(2, 3, 8, 8), [{"boxes": torch.zeros(0, 4)}, {"boxes": torch.zeros(1, 4)}]))
        [{'boxes': tensor([], size=(0, 4))}, {'boxes': tensor([[0., 0., 0., 0.]])}]
    """
    if batch_to_target is not None:
        return _select_labels(batch, batch_to_target)
    if isinstance(batch, (tuple, list)) and len(batch) == 1:
        batch = batch[0]
    labels = None
    if isinstance(batch, Mapping):
        labels = next((batch[key] for key in LABEL_KEYS if key in batch), None)
    elif isinstance(batch, (tuple, list)):
        required = _parameters(network, call)[1] if network is not None else 1
        place = required if _takes_several(batch, required) else 1
        labels = batch[place] if place < len(batch) else None
    return labels


def _is_path(batch: Any, spec: Any) -> bool:
    return isinstance(spec, str) and "." in spec and not (isinstance(batch, Mapping) and spec in batch)


def _select_labels(batch: Any, spec: Any) -> Any:
    function = load_object(spec, "batch_to_target") if _is_path(batch, spec) else spec
    try:
        return function(batch) if callable(function) else _item(batch, spec, "batch_to_target")
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"batch_to_target={spec!r} is not in a batch of {describe(batch)} ({type(error).__name__}: {error})."
        ) from None


def call_network(network: nn.Module, inputs: Inputs, call: str = "forward", output: OutputSpec = None) -> Tensor:
    """Call the network and return its logits.

    A dict is passed as keyword arguments where the call accepts its keys, and else as one argument. A tuple is passed
    as positional arguments, and as one argument where it has more elements than the call has parameters.
    :class:`~lit_xai.network.arguments.Arguments` are passed as they are.

    Args:
        network: the module.
        inputs: as :func:`find_inputs` returns them.
        call: the method that is called.
        output: where the logits are, see :func:`~lit_xai.network.outputs.find_logits`.

    Example:
        >>> import torch
        >>> call_network(nn.Linear(4, 2), torch.zeros(8, 4)).shape
        torch.Size([8, 2])
    """
    # network(...) rather than network.forward(...), which would skip the hooks.
    function = network if call == "forward" else getattr(network, call)
    # Graph networks write what they compute into the graph that they are given.
    inputs = with_own_containers(inputs)
    if isinstance(inputs, Arguments):
        result = function(*inputs.args, **inputs.kwargs)
    elif isinstance(inputs, Tensor):
        result = function(inputs)
    elif isinstance(inputs, Mapping):
        names, _, open_ended = _parameters(network, call)
        by_name = open_ended or all(key in names for key in inputs)
        result = function(**inputs) if by_name else function(inputs)
    else:
        result = function(*inputs) if _most_arguments(network, call) >= len(inputs) else function(inputs)
    return find_logits(result, output)


def check_call(network: nn.Module, inputs: Inputs, call: str = "forward", output: OutputSpec = None) -> Tensor:
    """Call the network as :func:`call_network` does, with an error that names the remedy if the call fails.

    Raises:
        ValueError: the network does not run with these inputs; names the arguments that select others.

    Example:
        >>> import torch
        >>> check_call(nn.Linear(4, 2), torch.zeros(8, 3))
        Traceback (most recent call last):
        ...
        ValueError: Linear.forward cannot be called with Tensor[8, 3] float32: name its inputs in a batch with ...
    """
    try:
        return call_network(network, inputs, call, output)
    # Not ValueError: that of find_logits names the argument to set already.
    except (TypeError, RuntimeError, LookupError, AttributeError, AssertionError) as error:
        keys = [key for key in elements(inputs) if isinstance(key, str)]
        hint = f", such as {keys[0]!r}" if keys else ""
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{type(network).__name__}.{call} cannot be called with {describe(inputs)}: name its inputs in a batch with"
            f" batch_to_inputs={hint}, and the network with module= ({type(error).__name__}: {reason})."
        ) from error


def _most_arguments(network: nn.Module, call: str) -> float:
    parameters = inspect.signature(find_call(network, call)).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return math.inf
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)

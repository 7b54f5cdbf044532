"""Parameters that a module of its own class multiplies by, as linear layers: what convolutions on graphs hold."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from lit_xai.network.linearized import AsLinear, Form

_PRODUCTS = {torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__}
_LINEAR = nn.functional.linear


def matrices_as_layers_(network: nn.Module, run: Callable[[], object]) -> dict[str, Form]:
    """Replace parameters that are only multiplied by (``x @ weight``, ``linear(x, weight)``) by linear layers.

    The layer becomes a part of the module that holds the parameter, under the parameter's name. The network computes
    the same.

    Args:
        network: a throwaway copy, whose linear layers of other classes are replaced.
        run: calls it.

    Returns:
        The layers by name, whose weight is the parameter of that name.
    """
    held = _candidates(network)
    if not held:
        return {}
    try:
        with _Uses({id(parameter): name for name, parameter in held.items()}) as uses:
            run()
    except Exception:  # tracing it says what is wrong
        return {}
    found = {}
    for name, ways in uses.seen.items():
        if len(ways) == 1 and None not in ways:
            form = Form(is_transposed=True in ways, is_parameter=True)
            owner, _, attribute = name.rpartition(".")
            _replace_(network.get_submodule(owner), attribute, form)
            found[name] = form
    return found


class Matrix(AsLinear):
    """A layer in the place of the parameter that is its weight: products with the parameter call the layer.

    Args:
        held: a module with this weight, and no bias.
        form: how the parameter stores the weight.
    """

    def __init__(self, held: Any, form: Form) -> None:
        super().__init__(held, form)
        self.form = form

    @property
    def tensor(self) -> Tensor:
        """The parameter's value."""
        return self.weight.t() if self.form.is_transposed else self.weight

    def __getattr__(self, name: str) -> Any:
        """Return what the layer has, or else the parameter: its shape, its device."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            # What torch asks of modules is no attribute of a tensor, and a copy in the making has no weight yet.
            if name.startswith("_") or name == "tensor" or "form" not in vars(self):
                raise
            return getattr(self.tensor, name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the layer where the parameter is multiplied by."""
        kwargs = kwargs or {}
        way = _way(func, args)
        if way is not None and isinstance(args[1], Matrix) and way == args[1].form.is_transposed:
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
            found = args[1](args[0])
            return found if bias is None else found + bias
        args, kwargs = tree_map(lambda value: value.tensor if isinstance(value, Matrix) else value, (args, kwargs))
        return func(*args, **kwargs)


def _candidates(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return bare matrices of modules that are no layers of torch's, unless two modules share one."""
    owners: dict[int, int] = {}
    for module in network.modules():
        for value in module.parameters(recurse=False):
            owners[id(value)] = owners.get(id(value), 0) + 1
    return {
        f"{name}.{own}".removeprefix("."): value
        for name, module in network.named_modules()
        if not _is_of_torch(module)
        for own, value in module.named_parameters(recurse=False)
        if value.dim() == 2 and owners[id(value)] == 1
    }


def _is_of_torch(module: nn.Module) -> bool:
    """Return whether a module is, or derives from, a layer of torch's."""
    bases = type(module).__mro__
    return any(one.__module__.startswith("torch.nn.") for one in bases[: bases.index(nn.Module)])


def _way(func: Any, args: Any) -> bool | None:
    """Return whether an operation multiplies by its second argument: as ``(in, out)``, as ``(out, in)`` or not."""
    if len(args) < 2 or not isinstance(args[0], Tensor):
        return None
    return True if func in _PRODUCTS else (False if func is _LINEAR else None)


class _Uses(TorchFunctionMode):
    """Note the ways in which parameters are used."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names, self.seen = names, dict[str, set[bool | None]]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def note(value: Any) -> Any:
            if isinstance(value, Tensor) and id(value) in self.names and not _reads_a_size(func):
                way = _way(func, args) if len(args) > 1 and value is args[1] else None
                self.seen.setdefault(self.names[id(value)], set()).add(way)
            return value

        tree_map(note, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _reads_a_size(func: Any) -> bool:
    return getattr(func, "__name__", "") in ("__get__", "size", "dim")


def _replace_(module: nn.Module, name: str, form: Form) -> None:
    weight = module._parameters.pop(name)
    assert weight is not None  # a candidate
    module.add_module(name, Matrix(_Holder(weight, module.training), form))


class _Holder:
    def __init__(self, weight: Tensor, training: bool) -> None:
        self.weight, self.bias, self.training = weight, None, training

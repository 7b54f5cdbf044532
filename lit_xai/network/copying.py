"""Independent copies of a network, and networks without ``torch.compile`` around them.

Private names in use: ``LightningModule._compiler_ctx``, ``nn.Module._compiled_call_impl``, ``nn.Module._forward_hooks``
and ``nn.Module._forward_pre_hooks``.
"""

import copy
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_xai.network.state import OF_TORCH, is_command_lines
from lit_xai.network.trees import objects


def copy_network(network: nn.Module) -> nn.Module:
    """Deep-copy a network at any time, also between a training step and the next.

    The copy has no trainer (of a LightningModule), no compiled methods and no hooks of Lightning's profiler. Tensors
    that a step left behind (a loss, an attention map, the weight that ``torch.nn.utils.weight_norm`` computed) are
    copied as values, without their graph.

    Args:
        network: left unchanged.

    Raises:
        ValueError: it holds an object that cannot be copied; names the attribute.

    Example:
        >>> import torch
        >>> network = nn.Linear(2, 2)
        >>> network.last = network(torch.ones(1, 2))
        >>> copied = copy_network(network)
        >>> copied.weight is network.weight, copied.last.requires_grad
        (False, False)
    """
    # In deepcopy's memo these stand for themselves: a copied Trainer would bring its loaders and loggers along.
    outside = [vars(m).get(name) for m in network.modules() for name in ("_trainer", "_fabric")]
    profilers = [owner for m in network.modules() for hooks in _hooks(m) if (owner := _profiler(hooks)) is not None]
    known: dict[int, Any] = {id(value): value for value in (*outside, *profilers) if value is not None}
    own = [value for m in network.modules() for name, value in vars(m).items() if name not in OF_TORCH]
    known |= {id(one): one for value in own for one in objects(value) if is_command_lines(one)}
    # Copying the dozen empty hook tables of every module takes two fifths of the time of a deep copy.
    parts = [value for module in network.modules() for value in vars(module).values()]
    known |= {id(value): type(value)() for value in parts if type(value) in (OrderedDict, set) and not value}
    try:
        with _ValuesOnly():
            copied = copy.deepcopy(network, dict(known))
    except Exception as error:
        raise _cannot_copy(network, known, error) from error
    for name in getattr(copied, "_compiler_ctx", None) or {}:  # a compiled copy's methods would call the original
        vars(copied).pop(name.removeprefix("original_"), None)
    # So would what module.compile() sets. torch leaves it out of copies, but LightningModule has a __getstate__ of its
    # own, which does not.
    for module in copied.modules():
        vars(module).pop("_compiled_call_impl", None)
        for hooks in _hooks(module) if profilers else ():
            for key in [key for key, hook in hooks.items() if _profiler({key: hook}) is not None]:
                del hooks[key]
    return copied


def _hooks(module: nn.Module) -> tuple[dict[int, Any], ...]:
    return module._forward_pre_hooks, module._forward_hooks


def _profiler(hooks: dict[int, Any]) -> Any:
    """Return the part of Lightning's ``PyTorchProfiler`` that some hooks belong to; it holds what cannot be copied."""
    owners = (getattr(getattr(hook, "func", hook), "__self__", None) for hook in hooks.values())
    return next((owner for owner in owners if type(owner).__name__ == "RegisterRecordFunction"), None)


class _ValuesOnly(TorchFunctionMode):
    """Let ``deepcopy`` copy the values of tensors that were computed, which torch refuses since it copies no graphs.

    Wherever they are held: as attributes, in lists or in objects of the user's.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__ or _is_plain(args[0]):
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:  # held at several places, it stays one tensor
            memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.is_leaf)
            if tensor.is_leaf:
                memo[id(tensor)].grad = tensor.grad.detach().clone()
        return memo[id(tensor)]


def _is_plain(tensor: Tensor) -> bool:
    """Return whether neither a tensor nor its gradient (with ``create_graph=True``) has a graph."""
    return tensor.is_leaf and (tensor.grad is None or tensor.grad.is_leaf)


def _cannot_copy(network: nn.Module, known: dict[int, Any], error: Exception) -> ValueError:
    """Return the error of a network that holds an object which cannot be copied, such as a lock or an open file."""
    why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    for prefix, module in network.named_modules():
        for name, value in vars(module).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                with _ValuesOnly():
                    copy.deepcopy(value, dict(known))
            except Exception:
                return ValueError(
                    f"{type(network).__name__} cannot be copied, since its attribute"
                    f" {f'{prefix}.{name}'.lstrip('.')!r} cannot ({why}): keep it outside of the module, or define"
                    " __deepcopy__ for it."
                )
    return ValueError(f"{type(network).__name__} cannot be copied ({why}).")


def uncompiled_(copied: nn.Module) -> nn.Module:
    """Remove ``torch.compile``'s wrappers from a copy, since hooks inside compiled code do not run.

    Example:
        >>> copied = copy_network(nn.Sequential(nn.Linear(2, 2)))
        >>> uncompiled_(copied)[0]
        Linear(in_features=2, out_features=2, bias=True)
    """
    for module in list(copied.modules()):
        module._modules.update({name: getattr(part, "_orig_mod", part) for name, part in module._modules.items()})
    return copied

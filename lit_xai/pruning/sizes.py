"""The attributes of modules that hold the sizes of their tensors, such as ``out_channels``: what a cut may set."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from lit_xai.network.calling import plain_name
from lit_xai.network.spelling import nearest
from lit_xai.structure.kinds import Step
from lit_xai.structure.schema import as_sizes

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
_SIZES_OF: Mapping[tuple[type[nn.Module], ...], frozenset[str]] = {
    _CONVOLUTIONS: frozenset({"in_channels", "out_channels", "groups"}),
    (nn.Linear,): frozenset({"in_features", "out_features"}),
    _NORMS: frozenset({"num_features"}),
    (nn.LayerNorm, nn.RMSNorm): frozenset({"normalized_shape"}),
    (nn.GroupNorm,): frozenset({"num_channels"}),
    (nn.PReLU,): frozenset({"num_parameters"}),
    (nn.Embedding,): frozenset({"embedding_dim"}),
    (nn.RNNBase,): frozenset({"input_size", "hidden_size"}),
    (nn.MultiheadAttention,): frozenset({"embed_dim", "head_dim", "kdim", "vdim"}),
}
_CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)


Values = list[tuple[nn.Module, str, Any]]
"""Modules, the attributes to set, and their values."""


def set_sizes_(values: Values) -> None:
    """Set attributes to what :func:`new_sizes` returned."""
    for module, attribute, value in values:
        setattr(module, attribute, value)


def new_sizes(network: nn.Module, step: Step, undo: bool = False) -> Values:
    """Return the attributes that a cut sets, after making sure that they are sizes and follow from what it keeps.

    Of a class of torch's these are the attributes that hold the sizes of its tensors. Of any other class it is an
    attribute that has the recorded value now, and changes as one of the module's dimensions does.

    Args:
        network: before the step, or after it.
        step: of kind ``prune``.
        undo: whether the values before the step are returned.

    Raises:
        ValueError: names the module and the attribute.
    """
    # A wrapper of torch.compile comes before what it wraps, which then takes its name.
    modules = {plain_name(name): module for name, module in network.named_modules(remove_duplicate=False)}
    cuts = [(plain_name(name), size, len(kept)) for name, _, size, kept in step["kept"]]
    values: Values = []
    for name, attribute, old, new in step["attributes"]:
        module = modules.get(plain_name(name))
        if module is None:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: it has no {name!r}.{nearest(name, modules)}"
            )
        reason = _refusal(module, attribute, *((new, old) if undo else (old, new)))
        if not reason and not _follows(old, new, _cuts_of(plain_name(name), cuts)):
            reason = f"{new!r} instead of {old!r} does not follow from the sizes that are kept"
        if reason:
            raise ValueError(f"The recipe does not fit {type(network).__name__}: {attribute!r} of {name!r}: {reason}.")
        values.append((module, attribute, _as_attribute(old if undo else new)))
    return values


def _refusal(module: nn.Module, attribute: str, before: Any, after: Any) -> str:
    sizes = _sizes_of(module)
    if sizes is not None and attribute not in sizes:
        return f"a cut sets no such attribute of {type(module).__name__}"
    if not attribute.isidentifier() or attribute.startswith("_"):
        return "a cut sets no such attribute"
    # vars(): a method, property, parameter or child is found elsewhere. A bool equals an integer.
    present = vars(module).get(attribute)
    if type(present) is not type(_as_attribute(before)) or present != _as_attribute(before):
        return f"expected {_as_attribute(before)!r} before the step, but the module has another value"
    return ""


def _sizes_of(module: nn.Module) -> frozenset[str] | None:
    """Return the sizes of a class that is torch's or derived from one, ``None`` for one of somebody else's."""
    bases = [base for base in type(module).__mro__ if base.__module__.partition(".")[0] == "torch"]
    if all(base in _CONTAINERS for base in bases):
        return None
    return frozenset().union(*(sizes for classes, sizes in _SIZES_OF.items() if isinstance(module, classes)))


def _cuts_of(name: str, cuts: Iterable[tuple[str, int, int]]) -> list[tuple[int, int]]:
    """Return sizes before and after within a module; those of all where it has no tensor that was cut."""
    prefix = f"{name}." if name else ""
    own = [(size, left) for tensor, size, left in cuts if tensor.startswith(prefix)]
    return own or [(size, left) for _, size, left in cuts]


def _follows(old: Any, new: Any, cuts: list[tuple[int, int]]) -> bool:
    """Return whether each value is unchanged, or a share of itself that a dimension keeps as well."""
    pairs = zip(as_sizes(old) or (), as_sizes(new) or (), strict=True)
    return all(one == other or any(one * left == other * size for size, left in cuts) for one, other in pairs)


def _as_attribute(sizes: Any) -> Any:
    return tuple(sizes) if isinstance(sizes, (list, tuple)) else sizes

"""Decide which channels of a network go, and write it down as a step of a recipe."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_xai.functional.calling import Inputs, OutputSpec, call_network, copy_network, module_names
from lit_xai.functional.untouched import untouched
from lit_xai.spelling import nearest


def prune_step(
    network: nn.Module,
    example_inputs: Inputs,
    *,
    pruning_ratio: float = 0.5,
    importance: Any = None,
    ignored_layers: Iterable[str | type] = (),
    round_to: int | None = None,
    global_pruning: bool = False,
    isomorphic: bool = False,
    max_pruning_ratio: float = 1.0,
    call: str = "forward",
    output: OutputSpec = None,
) -> dict[str, Any]:
    """Return the step that removes a share of a network's channels; the network itself is left as it is.

    Torch-Pruning (https://github.com/VainF/Torch-Pruning) traces a copy and removes coupled channels from it; what went
    is read off a second copy whose weights are their own positions. The layers that the output comes from stay whole.

    Args:
        network: the module to prune.
        example_inputs: what it is called with; shapes matter, values do not.
        pruning_ratio: the share of channels to remove, in [0, 1).
        importance: an instance of a ``torch_pruning.importance.Importance``; default ``GroupMagnitudeImportance``.
        ignored_layers: which layers to keep whole: dotted names (a module's parts are kept with it) or module classes.
        round_to: channel counts become multiples of it, the nearest one, and never less than one.
        global_pruning: rank channels over the whole network rather than within each layer.
        isomorphic: rank within layers of the same shape (Fang et al. 2024).
        max_pruning_ratio: of any one layer.
        call: the network's method that is called.
        output: where the logits are in its output.

    Returns:
        A step for :func:`lit_xai.recipe.take_step_`.

    Raises:
        ValueError: a ratio out of range, a name that is no layer, or a network that cannot be traced.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> step = prune_step(network, torch.zeros(1, 4), pruning_ratio=0.5)
        >>> [(name, dim, size, len(kept)) for name, dim, size, kept in step["kept"]]
        [('0.weight', 0, 8, 4), ('0.bias', 0, 8, 4), ('2.weight', 1, 8, 4)]
    """
    if not 0 <= pruning_ratio < 1:
        raise ValueError(f"pruning_ratio expected a share from 0 to below 1 to remove, but got {pruning_ratio}.")
    with untouched(network):
        work, twin = copy_network(network), copy_network(network)
    for parameter in work.parameters():
        parameter.requires_grad_(True)  # Torch-Pruning leaves frozen layers out without a word
    kept_layers = [*_named_layers(work, ignored_layers), *output_layers(work, example_inputs, call, output)]
    pruner = _build(
        work,
        example_inputs,
        call,
        output,
        importance=importance,
        pruning_ratio=pruning_ratio,
        ignored_layers=kept_layers,
        round_to=round_to,
        global_pruning=global_pruning,
        isomorphic=isomorphic,
        max_pruning_ratio=max_pruning_ratio,
    )
    _write_positions_(twin)
    _prune_both(pruner, work, twin)
    return {"kind": "prune", "kept": _kept(network, twin), "attributes": _changed_attributes(network, work)}


def output_layers(
    network: nn.Module, example_inputs: Inputs, call: str = "forward", output: OutputSpec = None
) -> list[nn.Module]:
    """Return the layers that the network's output comes from without another layer between.

    Found by walking the output's graph of gradients back to the first weights.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1))
        >>> output_layers(network, torch.zeros(1, 4))
        [Linear(in_features=8, out_features=3, bias=True)]
    """
    owners = {id(p): m for m in network.modules() for p in m.parameters(recurse=False) if p.dim() > 1}
    with untouched(network):
        logits = call_network(network, example_inputs, call, output)
    found: dict[int, nn.Module] = {}
    ahead, seen = [logits.grad_fn], set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        weights = [owner for owner in map(owners.get, _weights_of(node)) if owner is not None]
        found |= {id(owner): owner for owner in weights}
        ahead += [] if weights else [following for following, _ in node.next_functions]
    return list(found.values())


def _weights_of(node: Any) -> list[int]:
    """Ids of the parameters that a node of the graph takes directly, or transposed (as ``Linear`` does)."""
    found = []
    for following, _ in node.next_functions:
        if hasattr(following, "variable"):
            found.append(id(following.variable))
        elif following is not None and type(following).__name__ == "TBackward0":
            found += [id(f.variable) for f, _ in following.next_functions if hasattr(f, "variable")]
    return found


def _named_layers(network: nn.Module, ignored_layers: Iterable[str | type]) -> list[nn.Module]:
    names = module_names(network)
    found: list[nn.Module] = []
    for given in ignored_layers:
        matches = (
            [module for name, module in names.items() if name == given]
            if isinstance(given, str)
            else [module for module in names.values() if isinstance(module, given)]
        )
        if not matches:
            shown = given if isinstance(given, str) else given.__name__
            raise ValueError(f"ignored_layers: {shown!r} is no layer of the network.{nearest(str(shown), names)}")
        found += matches
    return found


def _build(network: nn.Module, inputs: Inputs, call: str, output: OutputSpec, **options: Any) -> Any:
    import torch_pruning

    options["importance"] = options["importance"] or torch_pruning.importance.GroupMagnitudeImportance()
    try:
        with _quiet(), torch.enable_grad():
            # Fresh dicts: the defaults are shared between pruners, and filled.
            return torch_pruning.pruner.BasePruner(
                network,
                example_inputs=inputs,
                forward_fn=lambda model, given: call_network(model, given, call, output),
                in_channel_groups={},
                out_channel_groups={},
                num_heads={},
                **options,
            )
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"{type(network).__name__} cannot be traced for pruning ({type(error).__name__}: {error}): narrow it down"
            " with module= to the part that can, or keep the part that cannot with ignored_layers=."
        ) from error


def _write_positions_(network: nn.Module) -> None:
    """Give every parameter and buffer its own flat positions as values, exact in float64."""
    for module in network.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is None:
                    continue
                positions = torch.arange(value.numel(), dtype=torch.float64).reshape(value.shape)
                is_parameter = isinstance(value, nn.Parameter)
                held[name] = nn.Parameter(positions, False) if is_parameter else positions  # type: ignore[assignment]  # a dict of one kind each


def _prune_both(pruner: Any, work: nn.Module, twin: nn.Module) -> None:
    """Prune the copy that is ranked, and the twin along with it."""
    from torch_pruning import _helpers, ops

    twins = dict(zip(work.modules(), twin.modules(), strict=True))
    with _quiet():
        for group in pruner.step(interactive=True):
            for dep, indices in group:
                plain = _helpers.to_plain_idxs(indices)
                dep.handler.__self__.pruning_dim = dep.target.pruning_dim
                if dep.target.type == ops.OPTYPE.PARAMETER:
                    path = pruner.DG._param_to_name[dep.target.module]
                    owner, _, name = path.rpartition(".")
                    holder = twin.get_submodule(owner)
                    setattr(holder, name, dep.handler(getattr(holder, name), plain))
                elif dep.target.module in twins:
                    dep.handler(twins[dep.target.module], plain)
            group.prune()


def _kept(network: nn.Module, twin: nn.Module) -> list[list[Any]]:
    """Read off which indices are left of each dimension."""
    left: dict[str, Tensor] = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    found = []
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        positions = left[name].detach().long()
        for dim, size in enumerate(value.shape):
            if positions.shape[dim] == size:
                continue
            along = positions[tuple(slice(None) if d == dim else 0 for d in range(value.dim()))]
            stride = int(torch.tensor(value.shape[dim + 1 :]).prod())
            found.append([name, dim, size, (along // stride % size).tolist()])
    return found


def _changed_attributes(before: nn.Module, after: nn.Module) -> list[list[Any]]:
    found = []
    for (name, old), new in zip(before.named_modules(), after.modules(), strict=True):
        for attribute, value in vars(old).items():
            now = vars(new).get(attribute)
            if (
                isinstance(value, (int, tuple))
                and not isinstance(value, bool)
                and type(now) is type(value)
                and now != value
            ):
                found.append([name, attribute, _plain(value), _plain(now)])
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unwrapped parameters and the like: what matters is checked in the result
        yield


def channels(network: nn.Module) -> Mapping[str, int]:
    """Return how many output channels each layer has.

    Example:
        >>> channels(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        {'0': 8, '2': 3}
    """
    names = ("out_channels", "out_features")
    return {
        name: next(getattr(module, key) for key in names if hasattr(module, key))
        for name, module in module_names(network).items()
        if any(hasattr(module, key) for key in names)
    }

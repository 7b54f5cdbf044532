"""The record of what was changed in a network's structure, and its replay.

A recipe is an ordered list of steps, plain Python values only. A step names, for each parameter and buffer, which
indices were kept of which dimension, and which attributes of which modules were set: enough to go forwards (index and
set) and backwards (room for what is missing, and set), so a network can be brought from any recorded structure to any
other without tracing it and without an input. Values that a step removed are gone; going back leaves zeros, which a
checkpoint's weights then fill.

Lightning's checkpoints carry it under one top-level key, and :func:`attach` makes a LightningModule replay it before
its weights are loaded.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lit_xai.spelling import nearest

M = TypeVar("M", bound=nn.Module)

KEY = "lit_xai_recipe"
VERSION = 1
KINDS = ("prune",)

Step = dict[str, Any]
"""``{"kind", "kept": [[name, dim, size, indices], ...], "attributes": [[module, name, old, new], ...], "note"}``."""


class Recipe:
    """The steps that led from a network's dense structure to its present one.

    Args:
        steps: in the order in which they were taken.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> kept = [["0.weight", 0, 3, [0, 2]], ["0.bias", 0, 3, [0, 2]], ["1.weight", 1, 3, [0, 2]]]
        >>> attributes = [["0", "out_features", 3, 2], ["1", "in_features", 3, 2]]
        >>> recipe = Recipe([{"kind": "prune", "kept": kept, "attributes": attributes}])
        >>> recipe.replay_(network)
        >>> network[0]
        Linear(in_features=2, out_features=2, bias=True)
        >>> Recipe().replay_(network, since=recipe)
        >>> network[0]
        Linear(in_features=2, out_features=3, bias=True)
    """

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.steps = list(steps)

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint; loads under ``torch.load(..., weights_only=True)``."""
        return {"version": VERSION, "steps": list(self.steps)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any] | None) -> "Recipe":
        """Return the recipe that a checkpoint holds; ``None`` is the dense structure.

        Raises:
            ValueError: it was written by a newer version, or holds a kind of step that this one does not know.
        """
        if saved is None:
            return cls()
        if saved.get("version") != VERSION:
            raise ValueError(
                f"The checkpoint's recipe expected version {VERSION}, but got {saved.get('version')!r}: load it with"
                " the lit_xai that wrote it, or a newer one."
            )
        unknown = next((step.get("kind") for step in saved["steps"] if step.get("kind") not in KINDS), None)
        if unknown is not None:
            raise ValueError(f"The checkpoint's recipe holds a step {unknown!r}, but known are {', '.join(KINDS)}.")
        return cls(saved["steps"])

    def replay_(self, network: nn.Module, since: "Recipe | None" = None) -> None:
        """Bring a network from the structure of ``since`` (default: dense) to that of this recipe, in place.

        Args:
            network: whose names the steps use.
            since: what it has gone through so far.

        Raises:
            ValueError: the network is not what the recipe was written for; names the first part that differs. The
                network is then as it was.
        """
        before = since.steps if since is not None else []
        common = next((i for i, pair in enumerate(zip(before, self.steps, strict=False)) if pair[0] != pair[1]), None)
        shared = min(len(before), len(self.steps)) if common is None else common
        done: list[Callable[[], None]] = []
        try:
            for step in reversed(before[shared:]):
                undo_step_(network, step)
                done.append(lambda step=step: apply_step_(network, step))  # type: ignore[misc]  # bound now
            for step in self.steps[shared:]:
                apply_step_(network, step)
                done.append(lambda step=step: undo_step_(network, step))  # type: ignore[misc]  # bound now
        except ValueError:
            for back in reversed(done):
                back()
            raise


def apply_step_(network: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
    """Take a step: keep the named indices, set the named attributes.

    Parameters become new objects, as their shapes do; optimizers are given them in the old ones' places, with their
    state (momentum, moments, whatever has the parameter's shape) cut the same way.

    Args:
        network: whose names the step uses.
        step: what to keep and to set.
        optimizers: whose parameters are among the network's.

    Raises:
        ValueError: a name is not there, or has another size than when the step was recorded. Nothing is changed then.
    """
    found = _check(network, step, recorded=lambda size, kept: size)
    _rebuild(network, step, found, optimizers, lambda value, dim, size, kept: value.index_select(dim, kept))
    for name, attribute, _, new in step["attributes"]:
        setattr(network.get_submodule(name), attribute, _plain(new))


def undo_step_(network: nn.Module, step: Step) -> None:
    """Go back behind a step: the shapes and attributes of before, zeros where values were removed.

    Raises:
        ValueError: the network is not what the step led to.
    """

    def widened(value: Tensor, dim: int, size: int, kept: Tensor) -> Tensor:
        room = value.new_zeros([*value.shape[:dim], size, *value.shape[dim + 1 :]])
        return room.index_copy(dim, kept, value)

    found = _check(network, step, recorded=lambda size, kept: len(kept))
    _rebuild(network, step, found, (), widened)
    for name, attribute, old, _ in step["attributes"]:
        setattr(network.get_submodule(name), attribute, _plain(old))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(network: nn.Module, step: Step, recorded: Callable[[int, list[int]], int]) -> dict[str, Tensor]:
    """Return the tensors that the step is about, after making sure that it fits."""
    tensors = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    modules = dict(network.named_modules(remove_duplicate=False))
    for name, dim, size, kept in step["kept"]:
        if name not in tensors:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: it has no {name!r}.{nearest(name, tensors)}"
            )
        expected, shape = recorded(size, kept), tuple(tensors[name].shape)
        if dim >= len(shape) or shape[dim] != expected:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: {name!r} expected size {expected} in dimension"
                f" {dim}, but got shape {shape}."
            )
    missing = next((name for name, *_ in step["attributes"] if name not in modules), None)
    if missing is not None:
        raise ValueError(
            f"The recipe does not fit {type(network).__name__}: it has no {missing!r}.{nearest(missing, modules)}"
        )
    return tensors


def _rebuild(
    network: nn.Module,
    step: Step,
    tensors: dict[str, Tensor],
    optimizers: Iterable[torch.optim.Optimizer],
    change: Callable[[Tensor, int, int, Tensor], Tensor],
) -> None:
    cuts: dict[int, list[tuple[int, int, list[int]]]] = {}
    for name, dim, size, kept in step["kept"]:
        cut = (dim, size, kept)
        if cut not in cuts.setdefault(id(tensors[name]), []):  # a tensor of two names is cut once
            cuts[id(tensors[name])].append(cut)

    def changed(value: Tensor, of: Tensor) -> Tensor:
        for dim, size, kept in cuts[id(of)]:
            value = change(value, dim, size, torch.tensor(kept, device=value.device, dtype=torch.int64))
        return value

    new: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if id(tensor) not in cuts:
                continue
            if id(tensor) not in new:
                value = changed(tensor.detach(), tensor)
                is_parameter = isinstance(tensor, nn.Parameter)
                new[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if is_parameter else value
            owner, _, attribute = name.rpartition(".")
            module = network.get_submodule(owner)
            held: dict[str, Any] = module._parameters if attribute in module._parameters else module._buffers
            held[attribute] = new[id(tensor)]
        for optimizer in optimizers:
            _follow(optimizer, new, changed)


def _follow(
    optimizer: torch.optim.Optimizer, new: dict[int, Tensor], changed: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Put the new parameters into the old ones' places, in place: schedulers and scalers refer to these groups."""
    for group in optimizer.param_groups:
        for place, old in enumerate(group["params"]):
            if id(old) not in new:
                continue
            group["params"][place] = new[id(old)]
            if old in optimizer.state:
                state = optimizer.state.pop(old)
                optimizer.state[new[id(old)]] = {
                    key: changed(value, old) if isinstance(value, Tensor) and value.shape == old.shape else value
                    for key, value in state.items()
                }


# What each module that is alive has gone through, and who holds on to it. Beside the modules, not on them: copies and
# pickles know nothing of it.
_recipes: WeakKeyDictionary[nn.Module, Recipe] = WeakKeyDictionary()
_attached: WeakKeyDictionary[nn.Module, "_Attachment"] = WeakKeyDictionary()


def recipe_of(module: nn.Module) -> Recipe:
    """Return what a module has gone through in this process; empty for one that was never changed.

    Example:
        >>> recipe_of(nn.Linear(2, 2)).steps
        []
    """
    return _recipes.setdefault(module, Recipe())


def take_step_(module: nn.Module, step: Step, optimizers: Iterable[torch.optim.Optimizer] = ()) -> None:
    """Take a step and remember it.

    Args:
        module: whose names the step uses.
        step: what to keep and to set.
        optimizers: see :func:`apply_step_`.

    Raises:
        ValueError: see :func:`apply_step_`; the step is then not remembered.
    """
    apply_step_(module, step, optimizers)
    _recipes[module] = Recipe([*recipe_of(module).steps, step])


def restore_structure_(module: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Bring a module to the structure that a checkpoint was saved with, whatever it is now.

    Args:
        module: of the checkpoint's class.
        checkpoint: as ``torch.load`` returns it; without a recipe the dense structure is meant.

    Raises:
        ValueError: the recipe is of another version, or does not fit the module.
    """
    recipe = Recipe.from_dict(checkpoint.get(KEY))
    recipe.replay_(module, since=recipe_of(module))
    _recipes[module] = recipe


class _Attachment:
    """Our attributes on one LightningModule, and how many callbacks rely on them."""

    def __init__(self, pl_module: Any) -> None:
        self.holders = 0
        self.theirs = {name: value for name, value in vars(pl_module).items() if name in _OURS}
        save, load, reduce = pl_module.on_save_checkpoint, pl_module.on_load_checkpoint, pl_module.__reduce_ex__

        def on_save_checkpoint(checkpoint: dict[str, Any]) -> None:
            save(checkpoint)
            if recipe_of(pl_module).steps:
                checkpoint[KEY] = recipe_of(pl_module).to_dict()

        def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
            load(checkpoint)
            restore_structure_(pl_module, checkpoint)

        def __reduce_ex__(protocol: int) -> Any:  # noqa: N807 - what copy and pickle ask an instance for
            function, arguments, state, *rest = reduce(protocol)
            state = {name: value for name, value in state.items() if name not in _OURS} | self.theirs
            return function, arguments, state, *rest

        self.ours = dict(zip(_OURS, (on_load_checkpoint, on_save_checkpoint, __reduce_ex__), strict=True))
        vars(pl_module).update(self.ours)

    def remove(self, pl_module: Any) -> None:
        """Put back what was there; what somebody wrapped around ours since stays."""
        for name, value in self.ours.items():
            if vars(pl_module).get(name) is value:
                del vars(pl_module)[name]
                vars(pl_module).update({k: v for k, v in self.theirs.items() if k == name})


_OURS = ("on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__")


def attach(pl_module: Any) -> None:
    """Make a LightningModule save its recipe and replay a checkpoint's before its weights are loaded.

    May be called by several callbacks; each calls :func:`detach` once. A deep copy or a pickle of the module has none
    of it.

    Args:
        pl_module: of either Lightning package; its own ``on_save_checkpoint`` and ``on_load_checkpoint`` run first.
    """
    if pl_module not in _attached:
        _attached[pl_module] = _Attachment(pl_module)
    _attached[pl_module].holders += 1


def detach(pl_module: Any) -> None:
    """Undo one :func:`attach`; the last one leaves the module as it was. Without one it does nothing."""
    attachment = _attached.get(pl_module)
    if attachment is None:
        return
    attachment.holders -= 1
    if attachment.holders == 0:
        del _attached[pl_module]
        attachment.remove(pl_module)


def load_from_checkpoint(
    cls: type[M],
    path: str | Path,
    map_location: Any = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    **init_kwargs: Any,
) -> M:
    """Load a LightningModule, in the structure in which it was saved.

    Args:
        cls: its class, whose code builds the dense structure.
        path: of the checkpoint.
        map_location: as for ``torch.load``.
        strict: as for ``LightningModule.load_from_checkpoint``.
        weights_only: likewise.
        init_kwargs: arguments of the class, over those that the checkpoint holds.

    Raises:
        ValueError: the checkpoint's recipe does not fit the class; names the first part that differs.
    """
    original = cls.on_load_checkpoint  # type: ignore[attr-defined]  # of a LightningModule of either package

    def on_load_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        original(self, checkpoint)
        restore_structure_(self, checkpoint)

    # Lightning builds the instance and loads its weights in one go; this hook is the only place between.
    with _loading:
        inherited = "on_load_checkpoint" not in vars(cls)
        cls.on_load_checkpoint = on_load_checkpoint  # type: ignore[attr-defined]  # as above
        try:
            return cls.load_from_checkpoint(  # type: ignore[attr-defined]  # as above
                path, map_location=map_location, strict=strict, weights_only=weights_only, **init_kwargs
            )
        finally:
            if inherited:
                del cls.on_load_checkpoint  # type: ignore[attr-defined]  # as above
            else:
                cls.on_load_checkpoint = original  # type: ignore[attr-defined]  # as above


_loading = Lock()

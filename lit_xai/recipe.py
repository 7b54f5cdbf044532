"""The record of what was changed in a network's structure, and its replay.

A recipe is an ordered list of steps, plain Python values only. A step names, for each parameter and buffer, which
indices were kept of which dimension, and which attributes of which modules were set: enough to go forwards (index and
set) and backwards (room for what is missing, and set), so a network can be brought from any recorded structure to any
other without tracing it and without an input. Values that a step removed are gone; going back leaves zeros, which a
checkpoint's weights then fill.

Lightning's checkpoints carry it under one top-level key, and :func:`attach` makes a LightningModule replay it before
its weights are loaded.
"""

import warnings
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

    Parameters become new objects, as their shapes do, with the old ones' flags, hooks and attributes; optimizers are
    given them in the old ones' places, with their state (momentum, moments, row and column factors) cut the same way.
    State that cannot be cut starts anew, with a warning.

    Args:
        network: whose names the step uses, with or without what ``torch.compile`` puts into names.
        step: what to keep and to set.
        optimizers: whose parameters are among the network's.

    Raises:
        ValueError: a name is not there, or has another size than when the step was recorded. Nothing is changed then.
    """
    found = _check(network, step, recorded=lambda size, kept: size)
    _rebuild(network, step, found, optimizers, lambda value, dim, size, kept: value.index_select(dim, kept))
    modules = _modules(network)
    for name, attribute, _, new in step["attributes"]:
        setattr(modules[_uncompiled(name)], attribute, _plain(new))


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
    modules = _modules(network)
    for name, attribute, old, _ in step["attributes"]:
        setattr(modules[_uncompiled(name)], attribute, _plain(old))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _uncompiled(name: str) -> str:
    """Take ``torch.compile``'s wrappers out of a name: a recipe fits a network compiled or not."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _modules(network: nn.Module) -> dict[str, nn.Module]:
    # A wrapper comes before what it wraps, which then takes its name.
    return {_uncompiled(name): module for name, module in network.named_modules(remove_duplicate=False)}


def _check(network: nn.Module, step: Step, recorded: Callable[[int, list[int]], int]) -> dict[str, Tensor]:
    """Return the network's tensors by their names there, after making sure that the step fits."""
    tensors = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    named, modules = {_uncompiled(name): tensor for name, tensor in tensors.items()}, _modules(network)
    for name, dim, size, kept in step["kept"]:
        if _uncompiled(name) not in named:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: it has no {name!r}.{nearest(name, named)}"
            )
        expected, shape = recorded(size, kept), tuple(named[_uncompiled(name)].shape)
        if dim >= len(shape) or shape[dim] != expected:
            raise ValueError(
                f"The recipe does not fit {type(network).__name__}: {name!r} expected size {expected} in dimension"
                f" {dim}, but got shape {shape}."
            )
    missing = next((name for name, *_ in step["attributes"] if _uncompiled(name) not in modules), None)
    if missing is not None:
        raise ValueError(
            f"The recipe does not fit {type(network).__name__}: it has no {missing!r}.{nearest(missing, modules)}"
        )
    return tensors


Cut = tuple[int, int, list[int]]
"""Dimension, size before, indices kept."""

Change = Callable[[Tensor, int, int, Tensor], Tensor]


def _rebuild(
    network: nn.Module,
    step: Step,
    tensors: dict[str, Tensor],
    optimizers: Iterable[torch.optim.Optimizer],
    change: Change,
) -> None:
    cuts: dict[int, list[Cut]] = {}
    named = {_uncompiled(name): tensor for name, tensor in tensors.items()}
    for name, *rest in step["kept"]:
        tensor, cut = named[_uncompiled(name)], (rest[0], rest[1], rest[2])
        if cut not in cuts.setdefault(id(tensor), []):  # a tensor of two names is cut once
            cuts[id(tensor)].append(cut)
    new: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if id(tensor) not in cuts:
                continue
            if id(tensor) not in new:
                value = _changed(tensor.detach(), cuts[id(tensor)], change)
                new[id(tensor)] = _successor(tensor, value) if isinstance(tensor, nn.Parameter) else value
            owner, _, attribute = name.rpartition(".")
            module = network.get_submodule(owner)
            held: dict[str, Any] = module._parameters if attribute in module._parameters else module._buffers
            held[attribute] = new[id(tensor)]
        for optimizer in optimizers:
            _follow(optimizer, new, lambda value, old: _changed(value, cuts[id(old)], change))


def _changed(value: Tensor, cuts: list[Cut], change: Change) -> Tensor:
    layout = torch.channels_last if value.dim() == 4 else torch.channels_last_3d
    is_last = value.dim() in (4, 5) and not value.is_contiguous() and value.is_contiguous(memory_format=layout)
    for dim, size, kept in cuts:
        value = change(value, dim, size, torch.tensor(kept, device=value.device, dtype=torch.int64))
    return value.contiguous(memory_format=layout) if is_last else value


def _successor(old: nn.Parameter, value: Tensor) -> nn.Parameter:
    """Return a parameter that is what the old one was to everybody: its flag, its hooks, what was written on it."""
    parameter = nn.Parameter(value, old.requires_grad)
    vars(parameter).update(vars(old))
    if old.requires_grad:
        for hook in (old._backward_hooks or {}).values():
            parameter.register_hook(hook)
        for hook in (old._post_accumulate_grad_hooks or {}).values():
            parameter.register_post_accumulate_grad_hook(hook)
    return parameter


def _follow(
    optimizer: torch.optim.Optimizer, new: dict[int, Tensor], changed: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Put the new parameters into the old ones' places, in place: schedulers and scalers refer to these groups."""
    if isinstance(optimizer, torch.optim.LBFGS):
        return _start_lbfgs_over(optimizer, new)
    reset = 0
    for group in optimizer.param_groups:
        for place, old in enumerate(group["params"]):
            if id(old) not in new:
                continue
            group["params"][place] = new[id(old)]
            if old in optimizer.state:
                try:
                    state = {k: _cut_state(k, v, old, changed) for k, v in optimizer.state.pop(old).items()}
                except _UncuttableError:
                    reset += 1
                else:
                    optimizer.state[new[id(old)]] = state
    if reset:
        warnings.warn(
            f"{type(optimizer).__name__} keeps state that does not follow its parameters' shapes: it starts anew for"
            f" {reset} of those that were cut.",
            stacklevel=2,
        )
    return None


class _UncuttableError(Exception):
    """An optimizer's state whose shape says nothing of which part belongs to which channel."""


def _cut_state(key: str, value: Any, old: Tensor, changed: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Cut one entry of a parameter's state as the parameter was cut."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if not isinstance(value, Tensor):
        raise _UncuttableError
    shape, full = tuple(value.shape), tuple(old.shape)
    if shape == full:
        return changed(value, old)
    if value.numel() == 1:  # the count of steps
        return value
    # Second moments in factors, of rows and columns: what torch's Adafactor keeps as size 1, others leave away.
    dropped = {"row": -1, "col": -2}.get(key.rpartition("_")[2])
    if dropped is not None and len(full) > 1 and shape == full[:dropped] + full[len(full) + dropped + 1 :]:
        value, squeezed = value.unsqueeze(dropped), True
    else:
        squeezed = False
    if value.dim() != len(full) or any(size not in (1, whole) for size, whole in zip(value.shape, full, strict=True)):
        raise _UncuttableError
    cut = changed(value.expand(full), old)
    for dim, size in enumerate(value.shape):
        cut = cut.narrow(dim, 0, 1) if size == 1 else cut
    return (cut.squeeze(dropped) if squeezed and dropped is not None else cut).contiguous()


def _start_lbfgs_over(optimizer: torch.optim.LBFGS, new: dict[int, Tensor]) -> None:
    """Forget L-BFGS' history, which is one vector over all parameters; private names: ``_params``, ``_numel_cache``."""
    parameters = optimizer.param_groups[0]["params"]
    if not any(id(parameter) in new for parameter in parameters):
        return
    parameters[:] = [new.get(id(parameter), parameter) for parameter in parameters]
    optimizer._params, optimizer._numel_cache = parameters, None
    if optimizer.state:
        optimizer.state.clear()
        warnings.warn("LBFGS keeps its history as one vector over all parameters: it starts anew.", stacklevel=2)


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


def take_step_(
    module: nn.Module,
    step: Step,
    optimizers: Iterable[torch.optim.Optimizer] = (),
    copies: Iterable[nn.Module] = (),
) -> None:
    """Take a step and remember it.

    Args:
        module: whose names the step uses.
        step: what to keep and to set.
        optimizers: see :func:`apply_step_`.
        copies: of the module, such as a running average of its weights; they are brought to the same structure.

    Raises:
        ValueError: see :func:`apply_step_`; the step is then not remembered.
    """
    before = recipe_of(module)
    apply_step_(module, step, optimizers)
    _recipes[module] = Recipe([*before.steps, step])
    _keep_in_step_(module, copies, before)


def _keep_in_step_(module: nn.Module, copies: Iterable[nn.Module], before: Recipe) -> None:
    """Bring copies to the module's structure; one that is new to us was copied in the structure of ``before``."""
    for copied in copies:
        recipe_of(module).replay_(copied, since=_recipes.get(copied, before))
        _recipes[copied] = recipe_of(module)


def restore_structure_(module: nn.Module, checkpoint: Mapping[str, Any], copies: Iterable[nn.Module] = ()) -> None:
    """Bring a module to the structure that a checkpoint was saved with, whatever it is now.

    Args:
        module: of the checkpoint's class.
        checkpoint: as ``torch.load`` returns it; without a recipe the dense structure is meant.
        copies: see :func:`take_step_`.

    Raises:
        ValueError: the recipe is of another version, or does not fit the module.
    """
    recipe = Recipe.from_dict(checkpoint.get(KEY))
    before = recipe_of(module)
    recipe.replay_(module, since=before)
    _recipes[module] = recipe
    _keep_in_step_(module, copies, before)


class _Attachment:
    """Our attributes on one LightningModule, and how many callbacks rely on them."""

    def __init__(self, pl_module: Any) -> None:
        self.holders = 0
        self.copies: Callable[[], Iterable[nn.Module]] = tuple
        self.theirs = {name: value for name, value in vars(pl_module).items() if name in _OURS}
        save, load, reduce = pl_module.on_save_checkpoint, pl_module.on_load_checkpoint, pl_module.__reduce_ex__

        def on_save_checkpoint(checkpoint: dict[str, Any]) -> None:
            save(checkpoint)
            if recipe_of(pl_module).steps:
                checkpoint[KEY] = recipe_of(pl_module).to_dict()

        def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
            load(checkpoint)
            restore_structure_(pl_module, checkpoint, self.copies())

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


def attach(pl_module: Any, copies: Callable[[], Iterable[nn.Module]] | None = None) -> None:
    """Make a LightningModule save its recipe and replay a checkpoint's before its weights are loaded.

    May be called by several callbacks; each calls :func:`detach` once. A deep copy or a pickle of the module has none
    of it.

    Args:
        pl_module: of either Lightning package; its own ``on_save_checkpoint`` and ``on_load_checkpoint`` run first.
        copies: returns the copies of the module there are by then, see :func:`take_step_`; the last one given counts.
    """
    if pl_module not in _attached:
        _attached[pl_module] = _Attachment(pl_module)
    _attached[pl_module].holders += 1
    _attached[pl_module].copies = copies or _attached[pl_module].copies


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

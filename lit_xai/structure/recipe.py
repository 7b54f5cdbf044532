"""The record of what was changed in a network's structure, and its replay.

A recipe is an ordered list of steps (:mod:`lit_xai.structure.kinds`), plain Python values only: enough to go forwards
and backwards, so a network can be brought from any recorded structure to any other without tracing it and without an
input. Values that a step removed are gone; going back leaves zeros, which a checkpoint's weights then fill.

Lightning's checkpoints carry it under one top-level key, and :func:`attach` makes a LightningModule replay it before
its weights are loaded.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from lit_xai.network.copying import copy_network
from lit_xai.structure.attaching import unwrap, wrap
from lit_xai.structure.checkpoints import advise_arguments, first_mismatch, read_checkpoint
from lit_xai.structure.kinds import Step, apply_step_, kind_of, undo_step_
from lit_xai.structure.parameter_order import Names, arrange_parameters_, optimizers_in, parameter_names

M = TypeVar("M", bound=nn.Module)

KEY = "lit_xai_recipe"
VERSION = 1


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
        for step in saved["steps"]:
            kind_of(step).check(step)
        return cls(saved["steps"])

    @property
    def label(self) -> str:
        """What checkpoints of the structure are called: after the last step, and how many of its kind there were.

        Example:
            >>> Recipe().label, Recipe([{"kind": "prune"}, {"kind": "prune"}]).label
            ('dense', 'pruned2')
            >>> Recipe([{"kind": "prune"}, {"kind": "fold"}, {"kind": "quantize"}]).label
            'quantized'
        """
        if not self.steps:
            return "dense"
        last = kind_of(self.steps[-1])
        return last.label if last.once else f"{last.label}{sum(kind_of(step) is last for step in self.steps)}"

    def before(self, kind: str) -> "Recipe":
        """Return the part of before the first step of a kind.

        Example:
            >>> Recipe([{"kind": "prune"}, {"kind": "fold"}, {"kind": "quantize"}]).before("quantize").steps
            [{'kind': 'prune'}, {'kind': 'fold'}]
        """
        return Recipe(itertools.takewhile(lambda step: step["kind"] != kind, self.steps))

    def in_float(self) -> "Recipe":
        """Return the part up to the first step after which training no longer goes on in float.

        Example:
            >>> Recipe([{"kind": "prune"}, {"kind": "fold"}, {"kind": "quantize"}]).in_float().steps
            [{'kind': 'prune'}]
        """
        return Recipe(itertools.takewhile(lambda step: kind_of(step).stays_float, self.steps))

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
        except Exception:  # a kind of somebody else's may raise anything
            for back in reversed(done):
                back()
            raise


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
    """Take a step and remember it; who asked :func:`attach` for it is told before.

    Args:
        module: whose names the step uses.
        step: what to keep and to set.
        optimizers: see :func:`~lit_xai.structure.kinds.apply_step_`.
        copies: of the module, such as a running average of its weights; they are brought to the same structure, and so
            are those that :func:`attach` was told of.

    Raises:
        ValueError: see :func:`~lit_xai.structure.kinds.apply_step_`, or the step comes too late; it is then not kept.
    """
    before, attachment = recipe_of(module), _attached.get(module)
    kind = kind_of(step)
    later = next((s["kind"] for s in before.steps if kind_of(s).order > kind.order), None)
    if later is not None:
        raise ValueError(f"A {kind.name!r} step has to come before {later!r}, which was taken already.")
    if kind.once and any(kind_of(s) is kind for s in before.steps):
        raise ValueError(f"A {kind.name!r} step is taken once, and this module has been through one.")
    if attachment is not None:
        for holder in list(attachment.holders.values()):
            holder.before_step(module)
    apply_step_(module, step, optimizers)
    _recipes[module] = Recipe([*before.steps, step])
    _keep_in_step_(module, [*copies, *(attachment.copies() if attachment is not None else ())], before)


def _keep_in_step_(module: nn.Module, copies: Iterable[nn.Module], before: Recipe) -> None:
    """Bring copies to the module's structure; one that is new to us was copied in the structure of ``before``."""
    for copied in copies:
        recipe_of(module).replay_(copied, since=_recipes.get(copied, before))
        _recipes[copied] = recipe_of(module)


def save_structure_(
    module: nn.Module, checkpoint: dict[str, Any], optimizers: Iterable[torch.optim.Optimizer] = ()
) -> None:
    """Put a module's recipe into a checkpoint, and which parameter stands where in its optimizers.

    Nothing is put in for a module that was never changed: its checkpoints are plain Lightning's.

    Args:
        module: whose structure is meant.
        checkpoint: that is being written.
        optimizers: that train it.
    """
    if recipe_of(module).steps:
        checkpoint[KEY] = recipe_of(module).to_dict() | {"parameters": parameter_names(module, optimizers)}


def _saved_order(checkpoint: Mapping[str, Any]) -> Names | None:
    """Return which parameter stood where, of a checkpoint whose optimizers are going to be resumed."""
    if not checkpoint.get("optimizer_states") or KEY not in checkpoint:
        return None
    # 0.1 left it to one callback's state.
    of_0_1 = checkpoint.get("callbacks", {}).get("QuantizationAwareTraining", {}).get("names")
    order: Names | None = checkpoint[KEY].get("parameters") or of_0_1
    return order


def restore_structure_(module: nn.Module, checkpoint: Mapping[str, Any], copies: Iterable[nn.Module] = ()) -> None:
    """Bring a module to the structure that a checkpoint was saved with, whatever it is now.

    Args:
        module: of the checkpoint's class.
        checkpoint: as ``torch.load`` returns it; without a recipe the dense structure is meant.
        copies: see :func:`take_step_`.

    Raises:
        ValueError: the recipe is of another version, or does not fit the module; says how to build one that it fits.
    """
    recipe = Recipe.from_dict(checkpoint.get(KEY))
    before = recipe_of(module)
    try:
        recipe.replay_(module, since=before)
    except ValueError as error:
        raise ValueError(f"{error} {advise_arguments(module, checkpoint.get('hyper_parameters', {}))}") from None
    _recipes[module] = recipe
    _keep_in_step_(module, copies, before)


def dense_copy(module: M) -> M:
    """Return a copy in the structure of before the first step; what was removed since is zero.

    Args:
        module: what steps were taken on; it stays as it is.
    """
    return copy_as(module, Recipe())


def copy_as(module: M, recipe: Recipe) -> M:
    """Return a copy in another structure that the module had.

    Args:
        module: what steps were taken on; it stays as it is.
        recipe: of that structure, such as ``recipe_of(module).in_float()``.
    """
    copied = copy_network(module)
    recipe.replay_(copied, since=recipe_of(module))
    return copied  # type: ignore[return-value]  # the copy of a module is of its class


class _Holder(NamedTuple):
    """What somebody who relies on the attachment has to do with it."""

    copies: Callable[[], Iterable[nn.Module]]
    optimizers: Callable[[], Iterable[torch.optim.Optimizer]]
    before_step: Callable[[Any], None]


class _Attachment:
    """What is wrapped around methods of a LightningModule so that its structure is saved and loaded, and for whom."""

    def __init__(self, pl_module: Any) -> None:
        self.holders: dict[Any, _Holder] = {}
        self._arguments: Mapping[str, Any] = {}
        self._order: Names | None = None

        def save(method: Callable[[Any], None], checkpoint: dict[str, Any]) -> None:
            method(checkpoint)
            save_structure_(pl_module, checkpoint, self.optimizers())

        def load(method: Callable[[Any], None], checkpoint: dict[str, Any]) -> None:
            method(checkpoint)
            self._arguments = checkpoint.get("hyper_parameters", {})
            restore_structure_(pl_module, checkpoint, self.copies())
            self._order = _saved_order(checkpoint)

        def configure(method: Callable[[], Any]) -> Any:
            # Between the loading of a checkpoint's weights and that of its optimizers' states.
            configured, order = method(), self._order
            if order is not None:
                arrange_parameters_(pl_module, optimizers_in(configured), order)
                self._order = None
            return configured

        def load_weights(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
            try:
                return method(*args, **options)
            except RuntimeError as error:
                given = {**dict(zip(("state_dict", "strict"), args, strict=False)), **options}
                _refuse_misfit(error, pl_module, given["state_dict"], self._arguments, given.get("strict", True))
                raise

        self.around: dict[str, Callable[..., Any]] = {
            "on_save_checkpoint": save,
            "on_load_checkpoint": load,
            "load_state_dict": load_weights,
            "configure_optimizers": configure,
        }
        for name, around in self.around.items():
            wrap(pl_module, name, around)

    def copies(self) -> list[nn.Module]:
        """Return all copies there are by now, each once."""
        found = (copied for holder in self.holders.values() for copied in holder.copies())
        return list({id(copied): copied for copied in found}.values())

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers that train the module, as the first holder that knows of any gives them."""
        return next((found for holder in self.holders.values() if (found := list(holder.optimizers()))), [])


def attach(
    pl_module: Any,
    holder: Any,
    copies: Callable[[], Iterable[nn.Module]] = tuple,
    optimizers: Callable[[], Iterable[torch.optim.Optimizer]] = tuple,
    before_step: Callable[[Any], None] = lambda pl_module: None,
) -> None:
    """Make a LightningModule save its recipe and replay a checkpoint's before its weights are loaded.

    May be called by several callbacks; each calls :func:`detach` once. A deep copy or a pickle of the module has none
    of it.

    Args:
        pl_module: of either Lightning package; its own ``on_save_checkpoint`` and ``on_load_checkpoint`` run first.
        holder: who asks, usually a callback; asking again replaces what it gave before.
        copies: returns the copies of the module that it keeps by then, see :func:`take_step_`.
        optimizers: returns those that train it: checkpoints then hold which of its parameters stands where in them.
        before_step: called with the module before each step that is taken.
    """
    if pl_module not in _attached:
        _attached[pl_module] = _Attachment(pl_module)
    _attached[pl_module].holders[holder] = _Holder(copies, optimizers, before_step)


def detach(pl_module: Any, holder: Any) -> None:
    """Undo :func:`attach`; the last holder's leaves the module as it was. Without one it does nothing."""
    attachment = _attached.get(pl_module)
    if attachment is None:
        return
    attachment.holders.pop(holder, None)
    if not attachment.holders:
        del _attached[pl_module]
        for name, around in attachment.around.items():
            unwrap(pl_module, name, around)


def _refuse_misfit(
    error: RuntimeError, module: nn.Module, weights: Any, arguments: Mapping[str, Any], strict: bool
) -> None:
    """Say in one sentence what torch says in one line for each weight, of a module whose structure was changed.

    Raises:
        ValueError: names the first weight that does not fit, and how to build a module that it does.
    """
    if recipe_of(module).steps and str(error).startswith("Error(s) in loading state_dict"):
        mismatch = first_mismatch(weights, module.state_dict(), strict) or str(error)
        advice = advise_arguments(module, arguments)
        raise ValueError(f"The checkpoint does not fit {type(module).__name__}: {mismatch} {advice}") from None


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
        TypeError: ``cls`` is no LightningModule's class.
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: it is no checkpoint, is damaged, or holds objects that are not trusted; or what it holds does not
            fit the class: names the first part that differs, and how the class has to be built.
        RuntimeError: of torch, where the weights of a module that was never changed do not fit.
    """
    if not (isinstance(cls, type) and hasattr(cls, "load_from_checkpoint")):
        raise TypeError(
            f"cls expected a LightningModule's class, as in load_from_checkpoint(MyModule, path), but got {cls!r}."
        )
    original = cls.on_load_checkpoint  # type: ignore[attr-defined]  # of a LightningModule of either package
    loading: list[tuple[Any, dict[str, Any]]] = []

    def on_load_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        original(self, checkpoint)
        restore_structure_(self, checkpoint)
        loading.append((self, checkpoint))

    # Lightning builds the instance and loads its weights in one go; this hook is the only place between.
    with _loading:
        inherited = "on_load_checkpoint" not in vars(cls)
        cls.on_load_checkpoint = on_load_checkpoint  # type: ignore[attr-defined]  # as above
        try:
            return cls.load_from_checkpoint(  # type: ignore[attr-defined]  # as above
                path, map_location=map_location, strict=strict, weights_only=weights_only, **init_kwargs
            )
        except Exception as error:
            if not loading:
                _refuse_file(path, weights_only)
            elif isinstance(error, RuntimeError):
                module, checkpoint = loading[0]
                arguments = checkpoint.get("hyper_parameters", {})
                _refuse_misfit(error, module, checkpoint["state_dict"], arguments, strict is not False)
            raise
        finally:
            if inherited:
                del cls.on_load_checkpoint  # type: ignore[attr-defined]  # as above
            else:
                cls.on_load_checkpoint = original  # type: ignore[attr-defined]  # as above


_loading = Lock()


def _refuse_file(path: Any, weights_only: bool | None) -> None:
    """Say what is wrong with a file that could not be loaded, if it is the file."""
    if not isinstance(path, str | Path) or "://" in str(path):  # Lightning reads streams and addresses as well
        return
    if "pytorch-lightning_version" not in read_checkpoint(path, weights_only):
        raise ValueError(
            f"'{path}' is no checkpoint of a Lightning Trainer, but weights alone: build the module, and give"
            " torch.load(...)['state_dict'] to its load_state_dict."
        )

"""A LightningModule whose checkpoints hold its recipe, and replay one before weights are loaded."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from lit_xai.structure.attaching import unwrap, wrap
from lit_xai.structure.kinds import Step, StepKind, apply_step_, check_plain, kind_of
from lit_xai.structure.loading import refuse_foreign_weights, refuse_misfit
from lit_xai.structure.parameter_order import (
    Names,
    arrange_parameters_,
    optimizers_in,
    parameter_names,
    put_parameters_,
    untrained,
)
from lit_xai.structure.recipe import (
    Recipe,
    keep_in_step_,
    recipe_of,
    remember_,
    restore_structure_,
    save_structure_,
    saved_order,
)
from lit_xai.structure.schema import check_schema

# Beside the modules, not on them: copies and pickles know nothing of it.
_attached: WeakKeyDictionary[nn.Module, "_Attachment"] = WeakKeyDictionary()


def take_step_(
    module: nn.Module,
    step: Step,
    optimizers: Iterable[torch.optim.Optimizer] = (),
    copies: Iterable[nn.Module] = (),
) -> None:
    """Take a step and record it; the ``before_step`` of each holder of :func:`attach` is called first.

    Args:
        module: the one whose names the step uses.
        step: plain values, see :mod:`lit_xai.structure.kinds`.
        optimizers: see :func:`~lit_xai.structure.kinds.apply_step_`.
        copies: copies of the module, such as a running average of its weights. They are brought to the same structure,
            as are those that holders of :func:`attach` keep.

    Raises:
        ValueError: see :func:`~lit_xai.structure.kinds.apply_step_`; or the step is malformed, holds other than plain
            values, or comes too late. It is not recorded then.
    """
    # Refused first, since holders prepare for the step and may keep copies of the weights.
    before, attachment = recipe_of(module), _attached.get(module)
    kind = kind_of(step)
    # As when it is read from a file: a run must not write a checkpoint that cannot be loaded.
    check_plain(step)
    kind.check(step)
    later = next((s["kind"] for s in before.steps if kind_of(s).order > kind.order), None)
    if later is not None:
        raise ValueError(f"A {kind.name!r} step has to come before {later!r}, which was taken already.")
    if kind.once and any(kind_of(s) is kind for s in before.steps):
        raise ValueError(f"A {kind.name!r} step is taken once, and this module has been through one.")
    if attachment is not None:
        for holder in list(attachment.holders.values()):
            holder.before_step(module)
    optimizers = list(optimizers)
    idle = untrained(module, optimizers)
    apply_step_(module, step, optimizers)
    _warn_of_untrained(kind, idle, untrained(module, optimizers), optimizers)
    remember_(module, Recipe([*before.steps, step]))
    keep_in_step_(module, [*copies, *copies_of(module)], before)


def step_back_(
    module: nn.Module,
    recipe: Recipe,
    order: Names,
    optimizers: Iterable[torch.optim.Optimizer] = (),
    copies: Iterable[nn.Module] = (),
) -> None:
    """Bring a module back to an earlier structure of its history, and record it; what steps removed is zero.

    Args:
        module: as for :func:`take_step_`.
        recipe: that :func:`~lit_xai.structure.recipe.recipe_of` gave then.
        order: the :func:`~lit_xai.structure.parameter_order.parameter_names` of the optimizers then.
        optimizers: they hold the parameters of that structure afterwards, without state where it was another.
        copies: as for :func:`take_step_`.
    """
    before, optimizers = recipe_of(module), list(optimizers)
    held = parameter_names(module, optimizers)
    recipe.replay_(module, since=before)
    put_parameters_(module, optimizers, held, order)
    remember_(module, recipe)
    keep_in_step_(module, [*copies, *copies_of(module)], before)


def copies_of(module: nn.Module) -> list[nn.Module]:
    """Return the copies of a module that the holders of :func:`attach` keep now, such as averages of its weights."""
    attachment = _attached.get(module)
    return [] if attachment is None else attachment.copies()


def _warn_of_untrained(kind: StepKind, before: list[str], after: list[str], optimizers: list[Any]) -> None:
    """Warn if a step took parameters from the optimizers: they would keep their values for the rest of the run."""
    if optimizers and len(after) > len(before):
        names = [name for name in after if name not in before]
        warnings.warn(
            f"The {kind.name!r} step left {len(after) - len(before)} trainable parameters without an optimizer (among"
            f" {', '.join(names[:4])}): they will not be trained. Its apply_ has to pass new parameters to exchange_ or"
            " follow_, and to keep those that another layer shares.",
            stacklevel=3,
        )


class _Holder(NamedTuple):
    """The contribution of one holder of an attachment."""

    copies: Callable[[], Iterable[nn.Module]]
    optimizers: Callable[[], Iterable[torch.optim.Optimizer]]
    before_step: Callable[[Any], None]


class _Attachment:
    """The wrappers around the methods of a LightningModule that save and load its structure, and their holders."""

    def __init__(self, pl_module: Any) -> None:
        self.holders: dict[Any, _Holder] = {}
        self._arguments: Mapping[str, Any] = {}
        self._order: Names | None = None

        def save(method: Callable[[Any], None], checkpoint: dict[str, Any]) -> None:
            method(checkpoint)
            save_structure_(pl_module, checkpoint, self.optimizers())

        def load(method: Callable[[Any], None], checkpoint: dict[str, Any]) -> None:
            check_schema(checkpoint.get("callbacks"), dict[str, Any] | None, "the checkpoint's 'callbacks'")
            method(checkpoint)
            # For the error of load_state_dict, which follows and is not given them.
            self._arguments = checkpoint.get("hyper_parameters", {})
            restore_structure_(pl_module, checkpoint, self.copies())
            self._order = saved_order(checkpoint)

        def configure(method: Callable[[], Any]) -> Any:
            # Lightning builds the optimizers after it has loaded the weights, and then loads their states by position.
            configured, order = method(), self._order
            if order is not None:
                arrange_parameters_(pl_module, optimizers_in(configured), order)
                self._order = None
            return configured

        def load_weights(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
            # Lightning passes strict by name, others may pass it by position.
            given = {**dict(zip(("state_dict", "strict"), args, strict=False)), **options}
            refuse_foreign_weights(pl_module, given["state_dict"])
            try:
                return method(*args, **options)
            except RuntimeError as error:
                refuse_misfit(error, pl_module, given["state_dict"], self._arguments, given.get("strict", True))
                raise

        # The module's own hooks: of a callback, Lightning calls on_load_checkpoint after it has loaded the weights, and
        # on_save_checkpoint not at all with save_weights_only=True.
        self.around: dict[str, Callable[..., Any]] = {
            "on_save_checkpoint": save,
            "on_load_checkpoint": load,
            "load_state_dict": load_weights,
            "configure_optimizers": configure,
        }
        for name, around in self.around.items():
            wrap(pl_module, name, around)

    def copies(self) -> list[nn.Module]:
        """Return the copies that holders keep now, each once."""
        # Several callbacks of one Trainer name the same averaged copy.
        found = (copied for holder in self.holders.values() for copied in holder.copies())
        return list({id(copied): copied for copied in found}.values())

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers that train the module, from the first holder that knows any."""
        return next((found for holder in self.holders.values() if (found := list(holder.optimizers()))), [])


def attach(
    pl_module: Any,
    holder: Any,
    copies: Callable[[], Iterable[nn.Module]] = tuple,
    optimizers: Callable[[], Iterable[torch.optim.Optimizer]] = tuple,
    before_step: Callable[[Any], None] = lambda pl_module: None,
) -> None:
    """Make a LightningModule save its recipe, and replay that of a checkpoint before its weights are loaded.

    Optimizers that ``configure_optimizers`` builds for a resumed run get their parameters in the order of the
    checkpoint. Several callbacks may attach; each calls :func:`detach` once. Deep copies and pickles of the module
    carry nothing of it.

    Args:
        pl_module: of either Lightning package; its own ``on_save_checkpoint`` and ``on_load_checkpoint`` run first.
        holder: usually a callback; attaching again replaces its earlier functions.
        copies: returns the copies of the module that the holder keeps at that time, see :func:`take_step_`.
        optimizers: returns the optimizers that train the module; checkpoints record the order of their parameters.
        before_step: called with the module before each step that is taken.
    """
    # One attachment for all holders, so that each step reaches the copies of all of them.
    if pl_module not in _attached:
        _attached[pl_module] = _Attachment(pl_module)
    _attached[pl_module].holders[holder] = _Holder(copies, optimizers, before_step)


def detach(pl_module: Any, holder: Any) -> None:
    """Undo :func:`attach`; the last one leaves the module as it was. Do nothing for anything that is no holder."""
    attachment = _attached.get(pl_module)
    if attachment is None:
        return
    attachment.holders.pop(holder, None)
    if not attachment.holders:
        del _attached[pl_module]
        for name, around in attachment.around.items():
            unwrap(pl_module, name, around)

"""A moment of a run that it can be brought back to: weights, structure and optimizers, bit for bit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch
from annotated_types import MinLen
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lit_xai.network.calling import plain_name
from lit_xai.structure.attachment import copies_of, step_back_
from lit_xai.structure.parameter_order import Names, parameter_names
from lit_xai.structure.recipe import Recipe, copy_as, recipe_of
from lit_xai.structure.schema import Checked, entries
from lit_xai.trainer.best import RANKING, rankings, return_to
from lit_xai.trainer.saved_state import FIX
from lit_xai.trainer.structure_change import (
    average_counts,
    averaged_copies,
    bare_optimizers,
    continue_with_parameters,
)


@dataclass(frozen=True)
class Accepted:
    """A moment of a run, held in memory: what training changes, but for schedules and random numbers, which go on.

    Args:
        recipe: the structure.
        values: parameters and buffers by name, of the module, and then of the copies that follow it.
        counts: of updates of averaged copies.
        order: names of the optimizers' parameters.
        optimizers: the state of each: momentum, moments.
        scaler: the state of the gradient scaler, empty without one.
        ranking: of ModelCheckpoints.
    """

    recipe: Recipe
    values: list[dict[str, Tensor]]
    counts: list[Tensor]
    order: Names
    optimizers: list[dict[Any, Any]]
    scaler: dict[str, Any]
    ranking: list[dict[str, Any]]

    @classmethod
    def of(cls, trainer: Trainer, pl_module: LightningModule) -> "Accepted":
        """Copy the present moment.

        Args:
            trainer: between two batches of ``fit``.
            pl_module: its module.
        """
        optimizers, scaler = bare_optimizers(trainer), _scaler(trainer)
        return cls(
            Recipe(recipe_of(pl_module).steps),
            [{name: _copied(value) for name, value in _tensors(one).items()} for one in _models(trainer, pl_module)],
            [_copied(count) for count in average_counts(trainer)],
            parameter_names(pl_module, optimizers),
            [tree_map(_copied, one.state_dict()["state"]) for one in optimizers],
            {} if scaler is None else tree_map(_copied, scaler.state_dict()),
            rankings(trainer),
        )

    def restore_(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring a run back to this moment; call it on every process.

        Args:
            trainer: as for :meth:`of`.
            pl_module: its module, in this structure or a later one.
        """
        optimizers, present = bare_optimizers(trainer), recipe_of(pl_module)
        if present.steps != self.recipe.steps:
            step_back_(pl_module, self.recipe, self.order, optimizers, averaged_copies(trainer))
            return_to(trainer, present.label, self.ranking, self.recipe.label)
        for place, model in enumerate(_models(trainer, pl_module)):
            # A copy that was not there yet begins with the weights of the module.
            _fill_(model, self.values[place if place < len(self.values) else 0])
        for count, value in zip(average_counts(trainer), self.counts, strict=False):
            count.copy_(value)
        for optimizer, state in zip(optimizers, self.optimizers, strict=True):
            _load_(optimizer, state)
        scaler = _scaler(trainer)
        if scaler is not None and self.scaler:
            scaler.load_state_dict(self.scaler)
        continue_with_parameters(trainer, pl_module)

    def state(self) -> dict[str, Any]:
        """Return it as plain values and tensors, for a checkpoint."""
        names = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**names, "recipe": self.recipe.to_dict()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], pl_module: LightningModule, name: str) -> "Accepted":
        """Return the moment that a checkpoint holds.

        Args:
            state: the :meth:`state`; it fits :data:`ACCEPTED`.
            pl_module: in its present structure.
            name: of the callback, for errors.

        Raises:
            ValueError: its structure or weights are none of the module's.
        """
        recipe = Recipe.from_dict(state["recipe"])
        dense = {key: tuple(one.shape) for key, one in _tensors(copy_as(pl_module, recipe)).items()}
        saved = {key: tuple(one.shape) for key, one in state["values"][0].items()}
        wrong = next((key for key in {**dense, **saved} if dense.get(key) != saved.get(key)), None)
        if wrong is not None:
            raise ValueError(
                f"The accepted weights in {name}'s state in the checkpoint do not fit {type(pl_module).__name__}:"
                f" {wrong!r} expected shape {dense.get(wrong, 'none')}, but got {saved.get(wrong, 'none')}. {FIX}"
            )
        return cls(**{**state, "recipe": recipe})


def _check_plain(value: Any, depth: int = 0) -> Any:
    """Refuse what is neither a tensor nor a plain value, as optimizers keep them."""
    if depth > 8 or not isinstance(value, (Tensor, bool, int, float, str, type(None), dict, list, tuple)):
        raise ValueError("tensors and plain values")
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    for one in inside:
        _check_plain(one, depth + 1)
    return value


_Plain = Annotated[dict[Any, Any], Checked(_check_plain)]

ACCEPTED = entries(
    {
        "recipe": dict[str, Any],
        "values": Annotated[list[dict[str, Tensor]], MinLen(1)],
        "counts": list[Tensor],
        "order": Names,
        "optimizers": list[_Plain],
        "scaler": _Plain,
        "ranking": list[RANKING],
    }
)
"""The schema of :meth:`Accepted.state`."""


def _models(trainer: Trainer, pl_module: LightningModule) -> Sequence[nn.Module]:
    copies = {id(one): one for one in [*averaged_copies(trainer), *copies_of(pl_module)]}
    return [pl_module, *copies.values()]


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, also those that no ``state_dict`` holds, by names without compilation."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {plain_name(name): value for name, value in named}


def _copied(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


@torch.no_grad()
def _fill_(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, tensor in _tensors(module).items():
        if name not in values:  # a buffer that came since
            continue
        if tensor.shape == values[name].shape:
            tensor.copy_(values[name])
        else:  # a buffer that grows
            tensor.data = values[name].to(tensor.device, tensor.dtype, copy=True)


def _load_(optimizer: torch.optim.Optimizer, state: Mapping[Any, Any]) -> None:
    """Give an optimizer its state of then, with the learning rates, and all else in its groups, of now."""
    groups, held = optimizer.param_groups, optimizer.state
    # Copied, as an optimizer may keep the tensors that it is given, and write into them.
    optimizer.load_state_dict({**optimizer.state_dict(), "state": tree_map(_copied, dict(state))})
    loaded = dict(optimizer.state)
    # The same objects as before: schedules and wrappers hold them.
    held.clear()
    held.update(loaded)
    optimizer.state, optimizer.param_groups = held, groups


def _scaler(trainer: Trainer) -> Any:
    return getattr(trainer.precision_plugin, "scaler", None)

"""The record of the structural changes of a network, and its replay.

A recipe is an ordered list of steps (:mod:`lit_xai.structure.kinds`) of plain Python values. They suffice to apply and
to undo each change, so that a network can be brought from any recorded structure to any other without tracing it and
without an input. Values that a step removed are gone: undoing it leaves zeros, which the weights of a checkpoint fill.

Checkpoints carry the recipe under one top-level key. :func:`lit_xai.structure.attachment.attach` makes a
LightningModule replay it before its weights are loaded.
"""

import itertools
import zlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NotRequired, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from typing_extensions import TypedDict

from lit_xai.network.copying import copy_network
from lit_xai.structure.checkpoints import advise_arguments
from lit_xai.structure.kinds import Step, apply_step_, check_plain, kind_of, undo_step_
from lit_xai.structure.parameter_order import Names, parameter_names
from lit_xai.structure.put_back import put_back_on_error
from lit_xai.structure.schema import ListOf, check_schema, closed

M = TypeVar("M", bound=nn.Module)

KEY = "lit_xai_recipe"
VERSION = 1


class Recipe:
    """The steps that lead from the dense structure of a network to its present one.

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
        self._damage = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values for a checkpoint, which load under ``torch.load(..., weights_only=True)``."""
        return _sealed({"version": VERSION, "steps": list(self.steps)})

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any] | None) -> "Recipe":
        """Return the recipe in a checkpoint; ``None`` stands for the dense structure.

        Raises:
            ValueError: another version wrote it, or it is malformed: a step of an unknown kind, or other than its kind
                expects.
        """
        if saved is None:
            return cls()
        version = saved.get("version") if isinstance(saved, dict) else None
        if type(version) is int and version != VERSION:  # anything else is the schema's to refuse
            raise ValueError(
                f"The checkpoint's recipe expected version {VERSION}, but got {version}: load it with"
                " the lit_xai that wrote it, or a newer one."
            )
        check_schema(saved, _Saved, "the checkpoint's recipe")
        for step in saved["steps"]:
            kind = kind_of(step)
            check_plain(step)
            kind.check(step)
        recipe = cls(saved["steps"])
        expected = saved.get("checksum", _checksum(saved))
        if expected != _checksum(saved):
            recipe._damage = f"The checkpoint's recipe expected the checksum {expected}, but got {_checksum(saved)}."
        return recipe

    @property
    def label(self) -> str:
        """The name of the structure in checkpoint files: the last kind of step, and how many of it were taken.

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
        """Return the part before the first step of a kind.

        Example:
            >>> Recipe([{"kind": "prune"}, {"kind": "fold"}, {"kind": "quantize"}]).before("quantize").steps
            [{'kind': 'prune'}, {'kind': 'fold'}]
        """
        return Recipe(itertools.takewhile(lambda step: step["kind"] != kind, self.steps))

    def in_float(self) -> "Recipe":
        """Return the part before the first step that ends training in float.

        Example:
            >>> Recipe([{"kind": "prune"}, {"kind": "fold"}, {"kind": "quantize"}]).in_float().steps
            [{'kind': 'prune'}]
        """
        return Recipe(itertools.takewhile(lambda step: kind_of(step).stays_float, self.steps))

    def replay_(self, network: nn.Module, since: "Recipe | None" = None) -> None:
        """Bring a network from the structure of ``since`` (default: dense) to that of this recipe, in place.

        Args:
            network: whose names the steps use.
            since: the recipe that the network has been through.

        Raises:
            ValueError: the recipe does not fit the network; names the first part that differs. The network is then as
                it was, down to its tensors.
        """
        before = since.steps if since is not None else []
        common = next((i for i, pair in enumerate(zip(before, self.steps, strict=False)) if pair[0] != pair[1]), None)
        shared = min(len(before), len(self.steps)) if common is None else common
        changes = [(undo_step_, step) for step in reversed(before[shared:])]
        changes += [(apply_step_, step) for step in self.steps[shared:]]
        with put_back_on_error(network, any(kind_of(step).in_place for _, step in changes)):
            for change, step in changes:
                change(network, step)
            # At the end, so that a step that does not fit is named.
            if self._damage:
                raise ValueError(f"{self._damage} It is not the one that was written: load another checkpoint.")


# Beside the modules rather than on them, so that copies, pickles and ``vars(module)`` stay as the user made them.
_recipes: WeakKeyDictionary[nn.Module, Recipe] = WeakKeyDictionary()


@closed
class _Saved(TypedDict):
    """A recipe in a checkpoint. 0.1 wrote no checksum."""

    version: int
    steps: Annotated[list[Any], ListOf(dict[str, Any])]
    parameters: NotRequired[Names]
    checksum: NotRequired[int]


def _sealed(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with its checksum: one that was changed by accident would build another network."""
    return {**saved, "checksum": _checksum(saved)}


def _checksum(saved: Mapping[str, Any]) -> int:
    # The ascii form of plain values is the same everywhere, and tells a list from a tuple and 1 from True.
    return zlib.crc32(ascii([saved["version"], saved["steps"], saved.get("parameters")]).encode())


def check_reversible(network: nn.Module, step: Step) -> None:
    """Apply, undo and apply a step on a copy, and compare the structures: the first test of a new kind.

    Args:
        network: one that the step fits; stays as it is.
        step: plain values.

    Raises:
        ValueError: undoing does not restore the names and shapes of parameters and buffers, or applying again gives
            others than before.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8))
        >>> pair = ["0", "1", {"class": "BatchNorm1d", "num_features": 8, "eps": 1e-5, "momentum": 0.1, "affine": True}]
        >>> pair[2]["bias"] = False
        >>> check_reversible(network, {"kind": "fold", "pairs": [pair]})
    """
    kind_of(step).check(step)
    copied = copy_network(network)
    shapes = [_shapes(copied)]
    for change in (apply_step_, undo_step_, apply_step_):
        change(copied, step)
        shapes.append(_shapes(copied))
    for what, one, other in (("undo_", shapes[0], shapes[2]), ("apply_ after undo_", shapes[1], shapes[3])):
        if one != other:
            name = next(name for name in {**one, **other} if one.get(name) != other.get(name))
            raise ValueError(
                f"{what} of {step['kind']!r} expected the structure of before, but {name!r} has shape"
                f" {other.get(name, 'none')} rather than {one.get(name, 'none')}."
            )


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items() if hasattr(value, "shape")}


def recipe_of(module: nn.Module) -> Recipe:
    """Return the recipe that a module has been through in this process, empty for one that was never changed.

    Example:
        >>> recipe_of(nn.Linear(2, 2)).steps
        []
    """
    return _recipes.setdefault(module, Recipe())


def remember_(module: nn.Module, recipe: Recipe) -> None:
    """Record what a module has been through, after its structure was changed accordingly."""
    _recipes[module] = recipe


def keep_in_step_(module: nn.Module, copies: Iterable[nn.Module], before: Recipe) -> None:
    """Bring copies of a module to its structure; a copy seen for the first time has the structure of ``before``."""
    for copied in copies:
        recipe_of(module).replay_(copied, since=_recipes.get(copied, before))
        _recipes[copied] = recipe_of(module)


def save_structure_(
    module: nn.Module, checkpoint: dict[str, Any], optimizers: Iterable[torch.optim.Optimizer] = ()
) -> None:
    """Add the recipe of a module, and the order of its optimizers' parameters, to a checkpoint.

    Nothing is added for a module that was never changed: its checkpoints stay plain Lightning checkpoints.

    Args:
        module: the one that is saved.
        checkpoint: the dict that is being written.
        optimizers: those that train the module.
    """
    if recipe_of(module).steps:
        order = {"parameters": parameter_names(module, optimizers)}
        checkpoint[KEY] = _sealed(recipe_of(module).to_dict() | order)


def saved_order(checkpoint: Mapping[str, Any]) -> Names | None:
    """Return the order of the optimizers' parameters in a checkpoint, ``None`` if it holds no optimizer states."""
    if not checkpoint.get("optimizer_states") or KEY not in checkpoint:
        return None
    saved: Names | None = checkpoint[KEY].get("parameters")
    if saved:
        return saved  # restore_structure_ has checked it
    # 0.1 wrote it into the state of one callback, so that it was lost on a resume without that callback.
    states = checkpoint.get("callbacks")
    of_0_1 = states.get("QuantizationAwareTraining") if isinstance(states, dict) else None
    names: Names | None = of_0_1.get("names") if isinstance(of_0_1, dict) else None
    check_schema(names, Names | None, "the order of parameters in the checkpoint")
    return names


def restore_structure_(module: nn.Module, checkpoint: Mapping[str, Any], copies: Iterable[nn.Module] = ()) -> None:
    """Bring a module from its present structure to that of a checkpoint.

    Args:
        module: of the checkpoint's class.
        checkpoint: as ``torch.load`` returns it; without a recipe its structure is dense.
        copies: see :func:`lit_xai.structure.attachment.take_step_`.

    Raises:
        ValueError: the recipe is of another version or does not fit the module; tells how to build one that fits.
    """
    recipe = Recipe.from_dict(checkpoint.get(KEY))
    before = recipe_of(module)
    try:
        recipe.replay_(module, since=before)
    except Exception as error:  # a kind of somebody else's may raise anything
        if not isinstance(error, ValueError):
            kinds = ", ".join(dict.fromkeys(kind_of(step).name for step in recipe.steps))
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"A step of the checkpoint's recipe ({kinds}) failed ({reason}).") from error
        if recipe._damage and str(error).startswith(recipe._damage):
            raise
        raise ValueError(f"{error} {advise_arguments(module, checkpoint.get('hyper_parameters', {}))}") from None
    _recipes[module] = recipe
    # With the recipe from before, which is that of copies seen for the first time.
    keep_in_step_(module, copies, before)


def dense_copy(module: M) -> M:
    """Return a copy in the dense structure, before the first step; removed values are zero.

    Args:
        module: stays as it is.
    """
    return copy_as(module, Recipe())


def copy_as(module: M, recipe: Recipe) -> M:
    """Return a copy in another structure of the module's history.

    Args:
        module: stays as it is.
        recipe: of that structure, such as ``recipe_of(module).in_float()``.
    """
    copied = copy_network(module)
    recipe.replay_(copied, since=recipe_of(module))
    return copied  # type: ignore[return-value]  # the copy of a module is of its class

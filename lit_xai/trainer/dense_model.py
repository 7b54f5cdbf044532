"""The dense model of a run: the module as it is just before its first structural step."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_xai.network.copying import copy_network
from lit_xai.structure.loading import load_weights_
from lit_xai.structure.recipe import dense_copy, recipe_of
from lit_xai.trainer.access import MisconfigurationException, rank_zero_info
from lit_xai.trainer.saved_state import FIX


class _Weights(dict[str, Tensor]):
    """Weights by name, which nobody writes to; unlike a plain dict they can be referred to weakly."""


# By the module that they are of: callbacks that want the dense model of one run share its weights, in memory and, as
# torch stores a tensor once, in checkpoints.
_kept: WeakKeyDictionary[nn.Module, "ref[_Weights]"] = WeakKeyDictionary()


class DenseModel:
    """A copy of the dense model, made just before the first structural step of a run, or restored in a resumed one.

    Args:
        name: of the callback, for messages.
        role: of the model in it: ``"teacher"``, ``"reference"``.
        weights_alone: whether to keep no module, for a callback that wants one at the end: see :meth:`rebuilt`.

    Attributes:
        module: the copy; ``None`` until it is made, and with ``weights_alone``.
    """

    def __init__(self, name: str, role: str, weights_alone: bool = False) -> None:
        self._name, self._role, self._weights_alone = name, role, weights_alone
        self.module: nn.Module | None = None
        self._weights: _Weights | None = None

    @property
    def is_known(self) -> bool:
        """Whether there is a dense model yet."""
        return self._weights is not None

    def resume(self, pl_module: LightningModule, resumed: Mapping[str, Any]) -> None:
        """Rebuild the dense model of a resumed run, if it had one.

        Args:
            pl_module: the module, perhaps in a changed structure.
            resumed: the :meth:`state` of that run.

        Raises:
            MisconfigurationException: the structure was changed before this run.
            ValueError: the weights do not fit.
        """
        if "dense" in resumed:
            copied = dense_copy(pl_module)
            try:
                load_weights_(copied, resumed["dense"])
            except ValueError as error:
                raise ValueError(f"The 'dense' of {self._name}'s state in the checkpoint: {error} {FIX}") from None
            self._keep(copied, pl_module)
        elif recipe_of(pl_module).steps:
            raise MisconfigurationException(
                f"{self._name}: {self._role}='dense' expected a model that is still dense, but this one was pruned"
                f" before: give the dense model's checkpoint as the {self._role}."
            )

    def before_structural_step(self, pl_module: Any) -> bool:
        """Copy the model before its first step; return whether this was it."""
        if self.is_known or recipe_of(pl_module).steps:
            return False
        self.take(pl_module)
        return True

    def take(self, pl_module: Any) -> None:
        """Copy the model as it is now."""
        self._keep(pl_module if self._weights_alone else copy_network(pl_module), pl_module)
        trained = "as it was given to fit: prune later if it has not been trained"
        if pl_module.global_step:
            trained = f"as it is in epoch {pl_module.current_epoch}, after {pl_module.global_step} optimizer steps"
        rank_zero_info(f"{self._name}: the {self._role} is the dense model, {trained}.")

    def _keep(self, module: nn.Module, pl_module: Any) -> None:
        # Kept for the checkpoints before the module is used, which may change its precision.
        reference = _kept.get(pl_module)
        known: dict[str, Tensor] = (None if reference is None else reference()) or {}
        with torch.no_grad():
            now = {name: value.detach().cpu() for name, value in module.state_dict().items()}
            self._weights = _Weights({name: _same(value, known.get(name)) for name, value in now.items()})
        _kept[pl_module] = ref(self._weights)
        self.module = None if self._weights_alone else module

    def rebuilt(self, pl_module: LightningModule) -> LightningModule:
        """Return the dense model in a copy of the module, which stays as it is.

        Args:
            pl_module: the module, perhaps in a changed structure.
        """
        assert self._weights is not None  # is_known
        copied = dense_copy(pl_module)
        load_weights_(copied, self._weights)
        return copied

    def state(self) -> dict[str, Any]:
        """Return the dense weights for a resumed run, once they are known."""
        return {} if self._weights is None else {"dense": dict(self._weights)}


def _same(value: Tensor, known: Tensor | None) -> Tensor:
    """Return a tensor that holds the same already, or a copy."""
    is_known = known is not None and known.dtype == value.dtype and torch.equal(known, value)
    return known if is_known and known is not None else value.clone()

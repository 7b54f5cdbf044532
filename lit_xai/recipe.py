"""Structural changes of a network, recorded as plain values and replayed: one import for what is in three modules.

:mod:`lit_xai.structure.recipe` holds the record, :mod:`lit_xai.structure.attachment` ties it to a LightningModule, and
:mod:`lit_xai.structure.loading` loads modules by it.
"""

from lit_xai.structure.attachment import attach, detach, take_step_
from lit_xai.structure.kinds import StepKind, register_kind
from lit_xai.structure.loading import load_from_checkpoint
from lit_xai.structure.recipe import Recipe, check_reversible, copy_as, dense_copy, recipe_of, restore_structure_

__all__ = [
    "Recipe",
    "StepKind",
    "attach",
    "check_reversible",
    "copy_as",
    "dense_copy",
    "detach",
    "load_from_checkpoint",
    "recipe_of",
    "register_kind",
    "restore_structure_",
    "take_step_",
]

"""The record of a network's structural changes, see :mod:`lit_xai.structure.recipe`."""

from lit_xai.structure.recipe import (
    Recipe,
    attach,
    copy_as,
    dense_copy,
    detach,
    load_from_checkpoint,
    recipe_of,
    restore_structure_,
    take_step_,
)

__all__ = [
    "Recipe",
    "attach",
    "copy_as",
    "dense_copy",
    "detach",
    "load_from_checkpoint",
    "recipe_of",
    "restore_structure_",
    "take_step_",
]

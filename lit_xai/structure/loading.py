"""Modules loaded from checkpoints in the structure in which they were saved."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from torch import nn

from lit_xai.structure.checkpoints import advise_arguments, first_mismatch, read_checkpoint
from lit_xai.structure.recipe import recipe_of, restore_structure_

M = TypeVar("M", bound=nn.Module)

# The class is patched while it loads: one thread at a time.
_loading = Lock()


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
        cls: the class of the LightningModule, whose code builds the dense structure.
        path: the checkpoint file.
        map_location: as in ``torch.load``.
        strict: as in ``LightningModule.load_from_checkpoint``.
        weights_only: as in ``LightningModule.load_from_checkpoint``.
        init_kwargs: arguments of the class, which override the hyperparameters in the checkpoint.

    Raises:
        TypeError: ``cls`` is no LightningModule's class.
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: the file is no checkpoint, is damaged, or holds objects that are not trusted; or its weights do not
            fit the class: names the first that differs, and how to build the class.
        RuntimeError: from torch, if the weights of a module that was never changed do not fit.
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
        # The instance is known here alone: where loading fails, Lightning returns none.
        loading.append((self, checkpoint))

    # Lightning builds the instance and loads its weights in one go; this hook is the only place between.
    with _loading:
        # An inherited method is deleted afterwards rather than set, so that later changes of the base class hold.
        inherited = "on_load_checkpoint" not in vars(cls)
        cls.on_load_checkpoint = on_load_checkpoint  # type: ignore[attr-defined]  # as above
        try:
            return cls.load_from_checkpoint(  # type: ignore[attr-defined]  # as above
                path, map_location=map_location, strict=strict, weights_only=weights_only, **init_kwargs
            )
        except Exception as error:
            # Without a module yet, the file is at fault or the module's own constructor.
            if not loading:
                _refuse_file(path, weights_only)
            elif isinstance(error, RuntimeError):
                module, checkpoint = loading[0]
                arguments = checkpoint.get("hyper_parameters", {})
                refuse_misfit(error, module, checkpoint["state_dict"], arguments, strict is not False)
            raise
        finally:
            if inherited:
                del cls.on_load_checkpoint  # type: ignore[attr-defined]  # as above
            else:
                cls.on_load_checkpoint = original  # type: ignore[attr-defined]  # as above


def _refuse_file(path: Any, weights_only: bool | None) -> None:
    """Raise an error about a file that could not be loaded, if the file is at fault."""
    if not isinstance(path, str | Path) or "://" in str(path):  # Lightning reads streams and addresses as well
        return
    if "pytorch-lightning_version" not in read_checkpoint(path, weights_only):
        raise ValueError(
            f"'{path}' is no checkpoint of a Lightning Trainer, but weights alone: build the module, and give"
            " torch.load(...)['state_dict'] to its load_state_dict."
        )


def refuse_misfit(
    error: RuntimeError, module: nn.Module, weights: Any, arguments: Mapping[str, Any], strict: bool
) -> None:
    """Raise a one-sentence error in place of torch's line for each weight, if the module's structure was changed.

    Raises:
        ValueError: names the first weight that does not fit, and how to build a module that fits.
    """
    if recipe_of(module).steps and str(error).startswith("Error(s) in loading state_dict"):
        mismatch = first_mismatch(weights, module.state_dict(), strict) or str(error)
        advice = advise_arguments(module, arguments)
        raise ValueError(f"The checkpoint does not fit {type(module).__name__}: {mismatch} {advice}") from None

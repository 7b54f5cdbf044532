"""Modules loaded from checkpoints in the structure in which they were saved."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_xai.structure.archive import limit_of
from lit_xai.structure.checkpoints import advise_arguments, first_mismatch, read_checkpoint
from lit_xai.structure.class_paths import INSTANTIATORS, foreign_path, imported, is_harmless
from lit_xai.structure.recipe import restore_structure_

M = TypeVar("M", bound=nn.Module)

# Of one tensor that a constructor may build: the embedding of a large language model is as large, and a checkpoint of
# adapters alone says nothing about the size of the rest.
_MOST_BYTES = 2 * 2**30

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

    The file is checked to its last byte first. It decides nothing that is imported or executed, unless you say that
    you trust it, with ``weights_only=False``: a class path among its hyperparameters has to be that of ``cls``, of a
    layer of torch or of a network of this library.

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
        ValueError: the file is no checkpoint, is damaged, or holds objects or class paths that are not trusted; or its
            weights do not fit the class: names the first that differs, and how to build the class.
    """
    return load_known(cls, path, (), map_location, strict, weights_only, init_kwargs)


def load_known(
    cls: type[M],
    path: str | Path,
    known: Collection[str],
    map_location: Any = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    init_kwargs: Mapping[str, Any] | None = None,
) -> M:
    """Load a LightningModule as :func:`load_from_checkpoint` does, with further class paths that the user named.

    Args:
        cls: see there.
        path: see there.
        known: class paths of the user's config.
        map_location: see there.
        strict: see there.
        weights_only: see there.
        init_kwargs: see there.
    """
    if not (isinstance(cls, type) and hasattr(cls, "load_from_checkpoint")):
        raise TypeError(
            f"cls expected a LightningModule's class, as in load_from_checkpoint(MyModule, path), but got {cls!r}."
        )
    given = dict(init_kwargs or {})
    # Lightning reads streams and addresses as well, which are left to it.
    is_file = isinstance(path, str | Path) and "://" not in str(path)
    limit = _check_file(cls, path, known, weights_only, given) if is_file else None
    original = cls.on_load_checkpoint  # type: ignore[attr-defined]  # of a LightningModule of either package
    loading: list[tuple[Any, dict[str, Any]]] = []

    def on_load_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        # The instance is known here alone: where loading fails, Lightning returns none.
        loading.append((self, checkpoint))
        original(self, checkpoint)
        restore_structure_(self, checkpoint)
        refuse_foreign_weights(self, checkpoint["state_dict"])

    # Lightning builds the instance and loads its weights in one go; this hook is the only place between.
    with _loading:
        # An inherited method is deleted afterwards rather than set, so that later changes of the base class hold.
        inherited = "on_load_checkpoint" not in vars(cls)
        cls.on_load_checkpoint = on_load_checkpoint  # type: ignore[attr-defined]  # as above
        try:
            with _bounded(limit):
                return cls.load_from_checkpoint(  # type: ignore[attr-defined]  # as above
                    path, map_location=map_location, strict=strict, weights_only=weights_only, **given
                )
        except Exception as error:
            if isinstance(error, RuntimeError) and loading:
                module, checkpoint = loading[0]
                arguments = checkpoint.get("hyper_parameters", {})
                refuse_misfit(error, module, checkpoint["state_dict"], arguments, strict is not False)
            elif not loading and limit is not None and weights_only is not False:
                raise _not_built(cls, path, error) from error
            raise
        finally:
            if inherited:
                del cls.on_load_checkpoint  # type: ignore[attr-defined]  # as above
            else:
                cls.on_load_checkpoint = original  # type: ignore[attr-defined]  # as above


def _check_file(cls: type, path: Any, known: Collection[str], weights_only: bool | None, given: dict[str, Any]) -> int:
    """Refuse a file before Lightning reads it; return how many bytes one tensor of its module may take."""
    checkpoint = read_checkpoint(path, weights_only)
    if "pytorch-lightning_version" not in checkpoint:
        raise ValueError(
            f"'{path}' is no checkpoint of a Lightning Trainer, but weights alone: build the module, and give"
            " torch.load(...)['state_dict'] to its load_state_dict."
        )
    if weights_only is not False:
        # Lightning takes arguments from the places of old versions too.
        places = ("hparams", "module_arguments", getattr(cls, "CHECKPOINT_HYPER_PARAMS_KEY", "hyper_parameters"))
        held = [checkpoint[key] for key in places if isinstance(checkpoint.get(key), Mapping)]
        arguments = {name: value for one in held for name, value in one.items() if name not in given}
        _refuse_foreign_classes(cls, str(path), arguments, known)
        if not isinstance(checkpoint.get("hparams_type"), str | None):
            raise ValueError(f"'{path}' is damaged: 'hparams_type' expected a string.")
    return max(_MOST_BYTES, limit_of(path))


def _refuse_foreign_classes(cls: type, path: str, arguments: dict[str, Any], known: Collection[str]) -> None:
    trust = "if you trust the file, add weights_only=False."
    named, instantiator = arguments.pop("_class_path", None), arguments.pop("_instantiator", None)
    if instantiator not in INSTANTIATORS:
        raise ValueError(f"'{path}' names {instantiator!r} as the function that builds the module: {trust}")
    if named is not None and imported(named) is not cls:
        raise ValueError(f"'{path}' holds a {named}, not a {cls.__name__}: give that class; or {trust}")
    is_parsed = instantiator is not None
    foreign = foreign_path(arguments, cls, lambda place, value: value in known or is_harmless(value), is_parsed)
    if foreign is not None:
        place, value = foreign
        argument = place.partition(".")[0]
        raise ValueError(
            f"'{path}' names {value!r} for the argument '{place}': give the argument, as in load_from_checkpoint("
            f"{cls.__name__}, path, {argument}=...); or, {trust}"
        )


@contextlib.contextmanager
def _bounded(limit: int | None) -> Iterator[None]:
    """Refuse tensors out of proportion to a file, whose hyperparameters a constructor may take for sizes."""
    if limit is None:
        yield
        return
    with _Bounded(limit):
        yield


class _Bounded(TorchFunctionMode):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Right after torch has reserved the memory, which costs nothing before it is written to.
        if type(result) is Tensor and not result.is_sparse and result.numel() * result.element_size() > self._limit:
            raise ValueError(f"a tensor of shape {tuple(result.shape)} is out of proportion to the file's size")
        return result


def _not_built(cls: type, path: Any, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:300].rstrip(".")
    return ValueError(
        f"'{path}' cannot be loaded as {cls.__name__}: its hyperparameters build no such module"
        f" ({type(error).__name__}: {reason}). Give those arguments of {cls.__name__} that are missing or wrong there."
    )


def refuse_foreign_weights(module: nn.Module, weights: Mapping[str, Any]) -> None:
    """Refuse weights that torch would convert to others without a word, such as integers for floating numbers.

    Raises:
        ValueError: names the first.
    """
    own = module.state_dict()
    for name, saved in weights.items():
        model = own.get(name)
        # Names and shapes are left to torch: modules may change them while they load.
        has_other_shape = isinstance(saved, Tensor) and isinstance(model, Tensor) and saved.shape != model.shape
        if model is not None and not has_other_shape and (mistake := first_mismatch({name: saved}, {name: model})):
            raise ValueError(f"The checkpoint does not fit {type(module).__name__}: {mistake}")


def load_weights_(
    module: nn.Module, weights: Mapping[str, Any], strict: bool = True, arguments: Mapping[str, Any] | None = None
) -> None:
    """Load the weights of a file into a module in the structure in which they were saved.

    Args:
        module: is changed.
        weights: names to tensors.
        strict: as in ``nn.Module.load_state_dict``.
        arguments: that the module of the file was built with, for the error.

    Raises:
        ValueError: they do not fit; names the first that differs.
    """
    refuse_foreign_weights(module, weights)
    try:
        module.load_state_dict(weights, strict=strict)
    except RuntimeError as error:
        refuse_misfit(error, module, weights, arguments or {}, strict)
        raise


def refuse_misfit(
    error: RuntimeError, module: nn.Module, weights: Any, arguments: Mapping[str, Any], strict: bool
) -> None:
    """Raise a one-sentence error in place of torch's line for each weight.

    Raises:
        ValueError: names the first weight that does not fit, and how to build a module that fits.
    """
    if str(error).startswith("Error(s) in loading state_dict"):
        mismatch = first_mismatch(weights, module.state_dict(), strict) or " ".join(str(error).split())
        advice = advise_arguments(module, arguments)
        raise ValueError(f"The checkpoint does not fit {type(module).__name__}: {mismatch} {advice}") from None

"""The arguments of a module in a checkpoint, as far as a config may take them over."""

from collections.abc import Mapping
from typing import Any

from lit_xai.network.import_path import load_object
from lit_xai.structure.class_paths import Place, foreign_path, imported


def completed_model(model: Any, arguments: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return what a checkpoint's hyperparameters set in the ``model`` of a config.

    Numbers, strings, bools, ``None``, and lists and dictionaries of these are taken over. A class path has to be the
    one in the config, at its place.

    Args:
        model: of the config, parsed; ``None`` without one.
        arguments: the hyperparameters, with ``_class_path``.
        file: the checkpoint, for errors.

    Raises:
        ValueError: the file names a class, or what may be imported as one, that the config does not; says which option
            names it.
    """
    plain = {name: value for name, value in arguments.items() if name not in ("_class_path", "_instantiator")}
    model = model.as_dict() if hasattr(model, "as_dict") else model  # of a Namespace
    path, own = arguments["_class_path"], _class_path(model)
    if own is None or not _is_same(path, own):
        raise _refusal(file, "model", path, own)
    foreign = foreign_path(plain, load_object(own, "model"), lambda place, value: _is_same(value, _at(model, place)))
    if foreign is not None:
        place, value = foreign
        raise _refusal(file, f"model.{place}", value, _at(model, tuple(place.split("."))))
    return {"class_path": own, "dict_kwargs": plain}


def _refusal(file: str, option: str, path: Any, own: Any) -> ValueError:
    has = "names none" if own is None else f"names {_class_path(own) or own!r}"
    return ValueError(
        f"'{file}' names {path!r} for --{option}, but the config {has}: a class in a file is imported only if you name"
        f" it too, with --{option} {path}."
    )


def _class_path(value: Any) -> str | None:
    path = value.get("class_path") if isinstance(value, Mapping) else value
    return path if isinstance(path, str) else None


def _is_same(path: Any, own: Any) -> bool:
    """Return whether a path of a file names the class or function, or is the string, that the config has there."""
    if callable(own) and isinstance(path, str):  # a function that is an argument's default
        return imported(path) is own
    named = _class_path(own)
    if not isinstance(path, str) or named is None:
        return False
    # The config's classes are imported, under another of their paths perhaps.
    return path == named or (imported(path) is not None and imported(path) is imported(named))


def _at(model: Any, place: Place) -> Any:
    """Return the config's value at a place of the file, ``None`` if it has none."""
    value = model
    for key in place:
        if isinstance(value, Mapping) and "class_path" in value:
            value = {**(value.get("init_args") or {}), **(value.get("dict_kwargs") or {})}
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list | tuple) and str(key).isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value

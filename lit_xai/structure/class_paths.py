"""Classes that a checkpoint's hyperparameters name: refused unless the user named them too.

A LightningCLI stores its whole config as the hyperparameters of the module, class paths included, and builds the module
from it again. Whoever writes such a file could name any code there. Nothing here imports: a path is looked up among the
modules that are imported already.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

Place = tuple[str | int, ...]
"""Where a value is among the arguments: ``("network", "width")``."""

Allowed = Callable[[Place, str], bool]
"""Returns whether a class path at a place was named by the user as well."""

INSTANTIATORS = (None, "lightning.pytorch.cli.instantiate_module", "pytorch_lightning.cli.instantiate_module")

# Their constructors build layers and optimizers, and do nothing else: as torch.load rebuilds tensors.
_HARMLESS = ("torch.nn", "torch.optim", "lit_xai.models")

_MOST_VALUES = 100_000


def imported(path: Any) -> Any:
    """Return the object at an import path if its module is imported already, else ``None``; nothing is imported.

    Example:
        >>> imported("torch.nn.Linear"), imported("somewhere.Net")
        (<class 'torch.nn.modules.linear.Linear'>, None)
    """
    package, _, name = str(path).rpartition(".")
    # Not getattr, which may call a function of the module.
    return vars(sys.modules[package]).get(name) if package in sys.modules else None


def is_harmless(path: str) -> bool:
    """Return whether a path names a layer or optimizer of torch, or a network of this library.

    Example:
        >>> is_harmless("torch.nn.Linear"), is_harmless("subprocess.Popen")
        (True, False)
    """
    found = imported(path)
    return isinstance(found, type) and f"{found.__module__}.".startswith(tuple(f"{one}." for one in _HARMLESS))


def class_paths_in(arguments: Any) -> set[str]:
    """Return all class paths in arguments that are trusted.

    Example:
        >>> class_paths_in({"network": {"class_path": "torch.nn.ReLU"}, "width": 3})
        {'torch.nn.ReLU'}
    """
    if isinstance(arguments, Mapping):
        own = {arguments["class_path"]} if isinstance(arguments.get("class_path"), str) else set()
        return own.union(*map(class_paths_in, arguments.values()))
    return set().union(*map(class_paths_in, arguments)) if isinstance(arguments, list | tuple) else set()


def foreign_path(
    arguments: Mapping[str, Any], cls: type, allowed: Allowed, is_parsed: bool = True
) -> tuple[str, Any] | None:
    """Return the place and the value of the first argument that names code which the user did not, or ``None``.

    Args:
        arguments: of a checkpoint, without ``_class_path`` and ``_instantiator``.
        cls: the class that they are for, whose type hints tell a name from an import path.
        allowed: tells which class paths and import paths are the user's own.
        is_parsed: whether jsonargparse builds the class from them, which imports every ``class_path``; otherwise they
            are handed over, and only an argument that may be a function is taken for an import path.
    """
    found = next(_foreign(arguments, cls, allowed, is_parsed), None)
    return None if found is None else (".".join(map(str, found[0])), found[1])


def _foreign(arguments: Mapping[str, Any], cls: type, allowed: Allowed, is_parsed: bool) -> Iterator[tuple[Place, Any]]:
    hints = _hints(cls)
    waiting: list[tuple[Place, Any, Any]] = [((name,), value, hints.get(name)) for name, value in arguments.items()]
    for count, (place, value, hint) in enumerate(waiting):
        # A file can hold a list that contains itself, or one list a billion times.
        if count > _MOST_VALUES or len(place) > 50:
            yield place[:1], "more values than any class takes"
            return
        if is_parsed and isinstance(value, Mapping) and "class_path" in value:
            path = value["class_path"]
            if not isinstance(path, str) or not allowed(place, path):
                yield place, path
                return
            inner = _hints(imported(path))
            given = [value.get(key) for key in ("init_args", "dict_kwargs")]
            pairs = [pair for one in given if isinstance(one, Mapping) for pair in one.items()]
            waiting += [((*place, name), inside, inner.get(name)) for name, inside in pairs]
        elif isinstance(value, Mapping | list | tuple):
            items: Any = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [((*place, key), inside, hint) for key, inside in items]
        elif isinstance(value, str) and _may_be_imported(value, hint, is_parsed) and not allowed(place, value):
            yield place, value
            return


def _hints(cls: Any) -> dict[str, Any]:
    """Return the type hints of a class's arguments, also of those that it hands on to its base classes."""
    hints: dict[str, Any] = {}
    for base in reversed(inspect.getmro(cls) if isinstance(cls, type) else ()):
        signature = getattr(base, "__init__", None)
        try:
            hints |= dict.fromkeys(inspect.signature(base).parameters, Any) | get_type_hints(signature)
        except (TypeError, ValueError, NameError):  # written in C, or hints that name what is not there
            continue
    return hints


def _may_be_imported(value: str, hint: Any, is_parsed: bool) -> bool:
    leaves = list(_leaves(hint))
    if any(_is_class(leaf) for leaf in leaves):
        return True
    # A key of a batch is taken for a function where it has a dot, and for a config where there is such a file.
    is_callable = any(leaf is Callable or leaf is type for leaf in leaves) if leaves else is_parsed
    return is_callable and ("." in value or os.path.exists(value))


def _leaves(hint: Any) -> Iterator[Any]:
    if hint is None:
        return
    if get_origin(hint) is Literal:
        yield str
    elif get_origin(hint) in (Callable, type):
        yield get_origin(hint)
    elif get_args(hint):
        for inside in get_args(hint):
            yield from _leaves(NoneType if inside is None else inside)
    else:
        yield hint


def _is_class(leaf: Any) -> bool:
    if not isinstance(leaf, type) or leaf.__module__ in ("builtins", "types", "typing", "collections.abc"):
        return False
    return not issubclass(leaf, os.PathLike | str | int)

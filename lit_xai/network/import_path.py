"""Objects by their import paths, as configurations name them."""

import importlib
from typing import Any

from lit_xai.network.spelling import nearest


def load_object(path: str, argument: str) -> Any:
    """Return the object at the import path ``package.module.name``.

    Args:
        path: the dotted import path.
        argument: the argument it was given for, named in the error.

    Raises:
        ValueError: the path cannot be imported.

    Example:
        >>> load_object("torch.nn.Linear", "method")
        <class 'torch.nn.modules.linear.Linear'>
    """
    package, _, name = path.rpartition(".")
    try:
        found = importlib.import_module(package)
    # importlib raises ValueError for a path without a dot, and TypeError for one that begins with a dot.
    except (ImportError, ValueError, TypeError) as error:
        message = f"{argument} expected an import path such as 'package.module.name', but got {path!r}: {error}."
        raise ValueError(message) from None
    if not hasattr(found, name):
        raise ValueError(f"{argument}={path!r}: {package} has no {name!r}.{nearest(name, dir(found))}")
    return getattr(found, name)

"""Where in the user's code an exporter stumbled."""

import os
import traceback

import torch

_LIBRARIES = (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)))


def user_line(error: BaseException) -> str:
    """Return the line of the network's code on which an exception arose, or its causes, as ``file:number: code``.

    Args:
        error: what was caught.

    Returns:
        Empty where only libraries took part.

    Example:
        >>> try:
        ...     torch.zeros(2) @ torch.zeros(3)
        ... except RuntimeError as error:
        ...     user_line(error).endswith("torch.zeros(2) @ torch.zeros(3)")
        True
    """
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    return f"{own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""


def _is_library(path: str) -> bool:
    packages = [os.path.join(_LIBRARIES[1], part) for part in ("functional", "export")]
    return path == "<string>" or path.startswith((_LIBRARIES[0], *packages))

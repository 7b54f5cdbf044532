"""The line of the user's code at which an exporter failed."""

import os
import traceback

import torch

from lit_xai.runtime.errors import root_cause

_TORCH, _PACKAGE = os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__))
_MODELS = os.path.join(_PACKAGE, "models")


def user_line(error: BaseException) -> str:
    """Return the line of the network's code that raised an exception's root cause, as ``file:number: code``.

    Args:
        error: the exception.

    Returns:
        An empty string where only libraries are in the traceback.

    Example:
        >>> try:
        ...     torch.zeros(2) @ torch.zeros(3)
        ... except RuntimeError as error:
        ...     user_line(error).endswith("torch.zeros(2) @ torch.zeros(3)")
        True
    """
    # The innermost frame of user code: outer ones only call it.
    frames = traceback.extract_tb(root_cause(error).__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)]
    return f"{own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""


def _is_library(path: str) -> bool:
    if path.startswith(_MODELS):  # we ship them, but users read and copy them as their own
        return False
    return path == "<string>" or path.startswith((_TORCH, _PACKAGE))

"""Set-up work that fails on every process if it fails on one: the others would wait for it in the next collective."""

from collections.abc import Callable
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from torch import distributed

T = TypeVar("T")

_AGREED = "_lit_xai_agreed"


def agreed(trainer: Trainer, name: str, work: Callable[[], T]) -> T:
    """Return the result of some work of each process; raise on all of them if it raised on any.

    Call it on every process. The work may contain calls of this function, directly before a collective of its own: a
    process that fails anywhere in it meets the others at the next call, whichever that is.

    Args:
        trainer: inside a stage.
        name: of the callback, for the error of the other processes; empty if their work is nothing, and the reason is
            all there is to say.
        work: done on each process.

    Raises:
        Exception: that of this process.
        ValueError: another process failed; says which, and why.

    Example:
        >>> agreed(Trainer(logger=False, accelerator="cpu"), "MyCallback", lambda: 3)
        3
    """
    error: Exception | None = None
    try:
        result = work()
    except Exception as caught:
        # All processes know of it already, and none waits here.
        if _is_agreed(caught) or not _is_distributed(trainer):
            raise
        error = caught
    if _is_distributed(trainer):
        failed = [(rank, reason) for rank, reason in enumerate(_gathered(_line(error))) if reason]
        if failed:
            rank, reason = failed[0]
            prefix = f"{name}: process {rank} of {trainer.world_size} failed. " if name else ""
            refused = error or ValueError(f"{prefix}{reason}")
            setattr(refused, _AGREED, True)
            raise refused
    return result


def _is_agreed(error: BaseException | None) -> bool:
    # An error that another one was made of, such as by a callback that puts its name before it, counts as well.
    while error is not None and not hasattr(error, _AGREED):
        error = error.__context__
    return error is not None


def _is_distributed(trainer: Trainer) -> bool:
    return trainer.world_size > 1 and distributed.is_available() and distributed.is_initialized()


def _gathered(reason: str) -> list[str]:
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, reason)
    return found


def _line(error: Exception | None) -> str:
    if error is None:
        return ""
    message = " ".join(str(error).split())
    return message if isinstance(error, ValueError) and message else f"{type(error).__name__}: {message}"

"""The choice between one line and a traceback for an error that ends a command."""

import re
import site
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb

from lightning.pytorch.utilities.exceptions import MisconfigurationException

# All folders that installed packages and the standard library may lie in: a file elsewhere is the user's own.
_LIBRARIES = (*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values())
_PACKAGE = str(Path(__file__).parents[1])
_CLEAR_MESSAGES = ("lit_xai", "lightning", "pytorch_lightning", "jsonargparse")
# From the first batch on, an error is most likely about the user's code or data, and the traceback says where.
_TRAINING = "lightning.pytorch.loops.training_epoch_loop"
_RESUMING = ".trainer.connectors.checkpoint_connector"

_TWICE = re.compile(r"^Found more than one stateful callback of type `(\w+)`")


def setup_sentence(error: BaseException) -> str | None:
    """Return the one line that explains an error before the first training step, ``None`` if the traceback has to.

    The traceback stays if the error passed through the user's own files, came up in training, or was raised by a
    library whose messages are not meant for those who configure it. Errors of the operating system (no space, no
    permission) are clear wherever they surface.

    Args:
        error: as caught around the whole command.
    """
    cause = without_wrappers(error)
    if is_users_own(cause) or _TRAINING in _modules(error):
        return None
    if isinstance(cause, OSError) and cause.filename and _raised_by(cause) not in _CLEAR_MESSAGES:
        return f"cannot use '{cause.filename}': {cause.strerror}."
    if isinstance(cause, RuntimeError) and str(cause).startswith("Error(s) in loading state_dict"):
        # torch writes a heading, then a line for each mismatch: the first is enough.
        first = str(cause).splitlines()[1:2]
        return " ".join(f"the checkpoint's weights do not fit this model: {' '.join(first)}".split())
    if isinstance(cause, RuntimeError) and (twice := _TWICE.search(str(cause))):
        return (
            f"two callbacks are {twice[1]} with the same settings, and a checkpoint could hold the state of one: leave"
            " one out, or give them different ones. --config appends to the callbacks of the configs before it."
        )
    plain = isinstance(cause, ValueError | TypeError | ImportError | MisconfigurationException)
    if isinstance(cause, OSError) or (plain and _raised_by(cause) in _CLEAR_MESSAGES):
        return " ".join(str(cause).split())
    if _raised_by(cause) != "lit_xai" and (failure := _failed_under_jsonargparse(cause)):
        return f"{failure}: {type(cause).__name__}: {' '.join(str(cause).split())}."
    if any(module.endswith(_RESUMING) for module in _modules(error)):
        # Lightning does not check what it restores: a value that no Trainer writes ends in any error.
        return f"the checkpoint cannot be resumed: {type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
    return None


def without_wrappers(error: BaseException) -> BaseException:
    """Return the error that jsonargparse wrapped while it tried the alternatives of a type."""
    while error.__cause__ is not None and _raised_by(error) == "jsonargparse":
        error = next(_foreign(error), error.__cause__)
    return error


def _foreign(error: BaseException) -> Iterator[BaseException]:
    """Yield what others raised while jsonargparse tried the alternatives of a type.

    It chains the first alternative's error alone, which before 4.50 is the one of ``None``. All of them are in the
    frame that raised.
    """
    frame = [frame for frame, _ in walk_tb(error.__traceback__)][-1]
    tried = map(without_wrappers, frame.f_locals.get("exceptions", ()))
    yield from (one for one in tried if is_users_own(one) or _raised_by(one) != "jsonargparse")


def is_users_own(error: BaseException) -> bool:
    """Return whether an error passed through a file outside this package, Python and installed packages."""
    files = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)]
    # Compiled modules and generated code name no file that could be opened.
    sources = [file for file in files if file.endswith(".py")]
    return isinstance(error, SyntaxError) or any(not file.startswith((_PACKAGE, *_LIBRARIES)) for file in sources)


def _failed_under_jsonargparse(error: BaseException) -> str | None:
    """Return what failed, if jsonargparse was reading a configuration or building a class that it names."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    builders = [i for i, frame in enumerate(frames) if str(frame.f_globals.get("__name__")).startswith("jsonargparse.")]
    if not builders:
        return None
    if not any("instantiat" in frames[i].f_code.co_name for i in builders):
        return "the configuration cannot be read"
    below = frames[builders[-1] + 1 :]
    name = type(below[0].f_locals["self"]).__name__ if below and "self" in below[0].f_locals else "a class"
    return f"{name} could not be built"


def _raised_by(error: BaseException) -> str:
    modules = _modules(error)
    return modules[-1].partition(".")[0] if modules else ""


def _modules(error: BaseException) -> list[str]:
    return [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]

"""Which errors of a command are one sentence to its user, and which are a traceback."""

import site
import sysconfig
from pathlib import Path
from traceback import walk_tb

from lightning.pytorch.utilities.exceptions import MisconfigurationException

_LIBRARIES = (*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values())
_PACKAGE = str(Path(__file__).parents[1])
_SPEAK_PLAINLY = ("lit_xai", "lightning", "pytorch_lightning", "jsonargparse")
_TRAINING = "lightning.pytorch.loops.training_epoch_loop"


def setup_sentence(error: BaseException) -> str | None:
    """Return the sentence that an error before the first training step comes down to, ``None`` for a traceback.

    The traceback stays where the error passed through the user's own files, came up in training, or was raised by a
    library that does not write for those who configure it. What the operating system says (no space, no permission) is
    plain wherever it surfaces.

    Args:
        error: as caught around the whole command.
    """
    cause = without_wrappers(error)
    if is_users_own(cause) or _TRAINING in _modules(error):
        return None
    if isinstance(cause, OSError) and cause.filename and _raised_by(cause) not in _SPEAK_PLAINLY:
        return f"cannot use '{cause.filename}': {cause.strerror}."
    if isinstance(cause, RuntimeError) and str(cause).startswith("Error(s) in loading state_dict"):
        first = str(cause).splitlines()[1:2]
        return " ".join(f"the checkpoint's weights do not fit this model: {' '.join(first)}".split())
    plain = isinstance(cause, ValueError | TypeError | ImportError | MisconfigurationException)
    if isinstance(cause, OSError) or (plain and _raised_by(cause) in _SPEAK_PLAINLY):
        return " ".join(str(cause).split())
    return None


def without_wrappers(error: BaseException) -> BaseException:
    """Return the error that jsonargparse met, and wrapped, while it tried the alternatives of a type."""
    while error.__cause__ is not None and _raised_by(error) == "jsonargparse":
        error = error.__cause__
    return error


def is_users_own(error: BaseException) -> bool:
    """Whether an error passed through a file outside this package, the standard library and installed packages."""
    files = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)]
    # Compiled modules and generated code name no file that could be opened.
    sources = [file for file in files if file.endswith(".py")]
    return isinstance(error, SyntaxError) or any(not file.startswith((_PACKAGE, *_LIBRARIES)) for file in sources)


def _raised_by(error: BaseException) -> str:
    modules = _modules(error)
    return modules[-1].partition(".")[0] if modules else ""


def _modules(error: BaseException) -> list[str]:
    return [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]

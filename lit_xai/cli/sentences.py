"""One line for each mistake in a configuration, in place of jsonargparse's tree of every alternative that it tried.

jsonargparse reads each class named in a configuration with a parser of its own. Its report of a mistake deep inside
therefore holds the innermost parser's message, indented once for each level. So every parser turns its own message
into a line, marked by :func:`mark`, and the parser above only puts its key before that line.

The wording is that of jsonargparse 4.53; :func:`_worded_today` brings that of 4.44 and later to it.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from torch import nn, optim

from lit_xai.network.spelling import nearest

_START, _END = "\x02", "\x03"  # the control characters around a text: no message holds them, no terminal shows them
_MARKED = re.compile(f"{_START}(.*?){_END}")
_NO_CLASS = re.compile(
    r"(?:given class_path '.+':\s+|expects a function or a callable class: )(.+?)(?:\. Got value: .*)?$", re.MULTILINE
)
_WRONG_BASE = re.compile(r"Import path (\S* ?)does not correspond to a subclass of (\w+)")
# "Expected a path" offers to name a file that holds the value, which does not help with a mistyped value.
_EXPECTED = re.compile(
    r"(?:Expected an? (?!path but )|Not a valid (?=subclass))(.+?)(?:: .*|, but .*|\. Got value: .*)?$", re.MULTILINE
)
_VALUE = re.compile(r"(?:Given value|Got value|import path string): (.+)")
_IMPORT_PATH = "dot import path string"  # jsonargparse's words for the name of a class
_BASES = (
    Callback,
    LightningDataModule,
    LightningModule,
    Logger,
    nn.Module,
    optim.Optimizer,
    optim.lr_scheduler.LRScheduler,
)


def mark(line: str) -> str:
    """Return a line such that :func:`explain` finds it in the report of the parser above."""
    return f"{_START}{line}{_END}"


def explain(message: str, options: Iterable[str], owner: str = "") -> str:
    """Return one line ``KEY: SENTENCE`` on what is wrong in a configuration; the key may be empty.

    Args:
        message: as jsonargparse wrote it.
        options: the options of the command, as typed (``--trainer.max_epochs``), or the arguments of a class.
        owner: the name of the class whose arguments are read; default the command.

    Example:
        >>> explain("unrecognized arguments: --trainer.max_epoch 3", ["--trainer.max_epochs"])
        ": there is no option '--trainer.max_epoch'. Did you mean '--trainer.max_epochs'?"
        >>> explain('Parser key "width": Expected a <class \\'int\\'>. Got value: wide', ["width"], "MLP")
        "width: expected int, but got 'wide'."
    """
    message = _worded_today(message)
    key = message.split('"')[1] if message.startswith('Parser key "') else ""
    if inner := _MARKED.search(message):
        is_nested = key and not inner[1].startswith(":")
        return f"{key}{'.' if is_nested else ''}{inner[1]}"
    return f"{key}: {_explain_value(message) if key else _explain_names(message, list(options), owner)}"


def _worded_today(message: str) -> str:
    """Return a message of jsonargparse 4.44 to 4.49 as 4.53 words it."""
    if message.startswith("Unrecognized arguments: "):
        return message.replace("U", "u", 1)
    if required := re.match(r"Option ['\"](.+?)['\"] is required but not", message):
        return f"the following arguments are required: {required[1]}"
    message = message.replace("Expected a config path but ", "Expected a path but ")
    return re.sub(r"Problem with given class_path '.+':\s+(?=Expected an instantiatable class)", "", message)


def _explain_names(message: str, options: list[str], owner: str) -> str:
    """Explain an option that does not exist or is missing; other messages stay, on one line."""
    if message.startswith("unrecognized arguments: "):
        return _no_option(message.split()[2].partition("=")[0], options)
    if message.startswith("Subcommand "):  # an option in a file
        return _no_option("--" + message.split("'")[-2], options)
    if message.startswith("Option "):  # of a class
        name = message.split("'")[1]
        return f"{owner} takes no '{name}'." + (nearest(name, options) or f" It takes {', '.join(options)}.")
    if message.startswith("the following arguments are required: "):
        names = message.partition(": ")[2]
        if owner:
            return f"{owner} needs {names}."
        given = " and ".join(f"--{name.partition('.')[2] or name}" for name in names.split(", "))
        return f"{given} is missing: give it here, or in a file named with --config."
    return " ".join(message.replace('in "<unicode string>", ', "at ").split())


def _no_option(name: str, options: list[str]) -> str:
    return f"there is no option '{name}'.{nearest(name, options)}"


def _explain_value(message: str) -> str:
    """Explain a value that does not fit its option."""
    found = _VALUE.findall(message)
    value = found[-1] if found else ""
    if problem := _NO_CLASS.search(message):
        return f"{problem[1].rstrip('.')}.{_similar_import(problem[1])}"
    if wrong := _WRONG_BASE.search(message):
        path = wrong[1].strip() or value
        return f"{path} is not a {wrong[2]}.{_twin_hint(path)}"
    if value.startswith("NestedArg(key="):
        return f"name a class before its {value.partition('=')[2].partition(',')[0]}."
    # null last: jsonargparse before 4.50 tries it first.
    expected = sorted(dict.fromkeys(map(_type_name, _EXPECTED.findall(message))), key="null".__eq__)
    if not expected:
        reason = message.partition("\n")[2].strip().partition("\n")[0]
        got = f", but got '{value}'" if value else ""
        return f"{reason.partition('. Got value: ')[0]}{got}."
    known = _quoted(" ".join(expected))
    if _IMPORT_PATH in message:
        known += [cls.__name__ for base in _BASES for cls in _subclasses(base)]
    return f"expected {' or '.join(expected)}, but got '{value}'.{nearest(value, known)}"


def _type_name(annotation: str) -> str:
    name = annotation.removeprefix("<class '").removesuffix("'>")
    if name.startswith("typing.Literal["):
        return name.removeprefix("typing.Literal[").removesuffix("]").replace(", ", " or ")
    return {"NoneType": "null", _IMPORT_PATH: "the import path of a class"}.get(name, name)


def _similar_import(problem: str) -> str:
    """Suggest names similar to the one that Python could not import, taken from Python's own message."""
    module, *names = _quoted(problem) or [""]
    if names and module in sys.modules:  # "module 'a' has no attribute 'B'"
        return nearest(
            names[0], [known for known, value in vars(sys.modules[module]).items() if isinstance(value, type)]
        )
    return nearest(module, [file.stem for file in Path().glob("*.py")])


def _quoted(text: str) -> list[str]:
    return re.findall(r"'(.+?)'", text)


def _twin_hint(path: str) -> str:
    module, _, name = path.rpartition(".")
    bases = getattr(getattr(sys.modules.get(module), name, None), "__mro__", ())
    # Lightning is published twice, and a class of one package does not inherit the other's.
    is_twin = any(cls.__module__.startswith("pytorch_lightning.") for cls in bases)
    return " It is one of pytorch_lightning: import lightning.pytorch instead." if is_twin else ""


def _subclasses(cls: type) -> Iterator[type]:
    return chain([cls], *map(_subclasses, cls.__subclasses__()))

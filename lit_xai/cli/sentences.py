"""jsonargparse's reports, a tree of every alternative that was tried, as the one sentence that matters."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from torch import nn, optim

from lit_xai.network.spelling import nearest

_KEY = re.compile(r'Parser key "(.+?)"(?: element \d+)?:\s*(.*)')
_CLASS = re.compile(r"Problem with given class_path '(.+)':")
_CALLABLE = re.compile(r"^Type typing.Callable.* expects a function or a callable class: ")
_GIVEN = re.compile(r"Given value: ((?:Namespace\(class_path='(.+?)')?.*?)(?:\. Got value: .*)?$")
_DOT_PATH = re.compile(r"Expected a dot import path string: (.*)")
_EXPECTED = re.compile(r"Expected an? (?!path but)(.+?)(?:\. Got value: (.*))?$")
_NESTED = re.compile(r"NestedArg\(key='(.+?)'")
_ABOUT_YAML = ("Problems parsing config", "Unexpected config")
_NOISE = re.compile(
    r"$|Does not validate|Subtypes:|Errors:|Given value type:|Subclass types expect|an? (class path|dict) |"
    r"Expected a path but|Expected an instantiatable|Not a valid subclass of|Unable to load config"
)
_BASES = (
    Callback,
    LightningDataModule,
    LightningModule,
    Logger,
    nn.Module,
    optim.Optimizer,
    optim.lr_scheduler.LRScheduler,
)


@dataclass
class _Report:
    """What a report says of the first alternative that says more than "it is no None"."""

    keys: list[str] = field(default_factory=list)
    class_path: str = ""
    problem: str = ""
    expected: list[str] = field(default_factory=list)
    short_name: str = ""
    given: str = ""


def explain(message: str, options: Iterable[str]) -> str:
    """Return one sentence that says where a configuration is wrong, what was expected and what is near to it.

    Args:
        message: as jsonargparse wrote it.
        options: the options of the command, as typed (``--trainer.max_epochs``).

    Example:
        >>> explain("unrecognized arguments: --trainer.max_epoch 3", ["--trainer.max_epochs"])
        "there is no option '--trainer.max_epoch'. Did you mean '--trainer.max_epochs'?"
    """
    if message.startswith(_ABOUT_YAML):
        return " ".join(message.replace('in "<unicode string>", ', "at ").split())
    report = _read(message)
    if report.problem:
        sentence = _say_problem(report, options)
    elif nested := _NESTED.match(report.given):
        sentence = f"name a class before its '{nested[1]}'."
    elif report.short_name and (_similar_class(report.short_name) or not report.expected):
        sentence = f"there is no class '{report.short_name}' among those imported.{_similar_class(report.short_name)}"
        sentence += "" if sentence.endswith("?") else " Give its import path."
    else:
        expected = [*report.expected, *(["the import path of a class"] if report.short_name else [])]
        named = nearest(report.given, re.findall(r"'(.+?)'", " ".join(expected)))
        sentence = f"expected {' or '.join(expected)}, but got '{report.given}'.{named}"
    return ".".join(report.keys) + (": " if report.keys else "") + sentence


def _read(message: str) -> _Report:
    report = _Report()
    for line in message.splitlines():
        _read_line(_CALLABLE.sub("", line.strip().removeprefix("- ")), report)
    return report


def _read_line(line: str, report: _Report) -> None:
    if match := _GIVEN.match(line):
        report.given = report.given or match[1]
        report.class_path = report.class_path or match[2] or ""
    elif report.problem or report.given or _NOISE.match(line):
        return  # the innermost report comes first, and each ends with what was given
    elif match := _KEY.match(line):
        report.keys.append(match[1])
        _read_line(match[2], report)
    elif match := _CLASS.match(line):
        report.class_path = match[1]
    elif match := _DOT_PATH.match(line):
        report.short_name = match[1]
    elif match := _EXPECTED.match(line):
        report.expected += [name for name in [_type_name(match[1])] if name not in report.expected]
        report.given = match[2] or ""
    else:
        report.problem = line
        # The report of a class that is to be called later names it as what was given.
        if called_later := re.search(r"(.*)\. Got value: \w*\(?class_path='(.+?)'", line):
            report.problem, report.class_path = called_later.groups()


def _type_name(annotation: str) -> str:
    if annotation.startswith("typing.Literal["):
        return annotation.removeprefix("typing.Literal[").removesuffix("]").replace(", ", " or ")
    name = re.sub(r"^<class '(.+)'>$", r"\1", annotation)
    return {"NoneType": "null"}.get(name, name)


def _say_problem(report: _Report, options: Iterable[str]) -> str:
    rules: list[tuple[str, Callable[..., str]]] = [
        (r"Subcommand '\w+' does not accept option '(.+)'", lambda name: _no_option(f"--{name}", options)),
        (r"unrecognized arguments: (\S+)", lambda name: _no_option(name.partition("=")[0], options)),
        (r"Option '(.+?)' is not accepted\.?( Did you mean .+?\?| It takes .+?\.)?", partial(_no_argument, report)),
        (r"the following arguments are required: (.+)", partial(_missing, report)),
        (r"module '(.+)' has no attribute '(.+)'", _no_class),
        (r"No module named '(.+)'", _no_module),
        (r"Import path (\S+ )?does not correspond to a subclass of (\w+)", partial(_no_subclass, report)),
    ]
    for pattern, say in rules:
        if match := re.search(pattern, report.problem):
            return say(*match.groups(default=""))
    return report.problem


def _no_option(name: str, options: Iterable[str]) -> str:
    return f"there is no option '{name}'.{nearest(name, options)}"


def _no_argument(report: _Report, name: str, hint: str) -> str:
    return f"{report.class_path or 'this class'} takes no '{name}'.{hint}"


def _missing(report: _Report, names: str) -> str:
    if report.class_path:
        return f"{report.class_path} needs {names}."
    given = " and ".join(f"--{name.partition('.')[2] or name}" for name in names.split(", "))
    return f"{given} is missing: give it here, or in a file named with --config."


def _no_class(module: str, name: str) -> str:
    classes = [known for known, value in vars(import_module(module)).items() if isinstance(value, type)]
    return f"there is no '{name}' in {module}.{nearest(name, classes)}"


def _no_module(module: str) -> str:
    here = [file.stem for file in Path().glob("*.py")]
    return f"there is no module '{module}' in this folder or among the installed packages.{nearest(module, here)}"


def _no_subclass(report: _Report, path: str, base: str) -> str:
    path = path.strip() or report.given
    module, _, name = path.rpartition(".")
    bases = getattr(getattr(import_module(module), name), "__mro__", ())
    # Lightning is published twice, and the classes of one package are none of the other's.
    twin = any(cls.__module__.startswith("pytorch_lightning.") for cls in bases)
    hint = " It is one of pytorch_lightning: import lightning.pytorch instead." if twin else ""
    return f"{path} is not a {base}.{hint}"


def _similar_class(name: str) -> str:
    return nearest(name, {cls.__name__ for base in _BASES for cls in _subclasses(base)})


def _subclasses(cls: type) -> Iterator[type]:
    return chain([cls], *map(_subclasses, cls.__subclasses__()))

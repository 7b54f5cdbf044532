"""Checks of a study before its first cell: its options, their values, its reference and its objectives."""

import contextlib
import copy
import io
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lit_xai.cli.cell_runs import CONFIG, CellError, CellRun, cell_config, compare_options, write_config
from lit_xai.network.spelling import nearest
from lit_xai.report.measured import MEASURED
from lit_xai.study.options import set_option
from lit_xai.study.settings import Settings
from lit_xai.study.space import Choices

REFERENCE = "reference"
"""The word for the reference's checkpoint in ``init_from``."""


def check_study(settings: Settings) -> None:
    """Refuse a study that cannot run as its settings say.

    Args:
        settings: of the study.

    Raises:
        ValueError: an option or config is unknown, a value does not fit, there is no reference where one is needed, or
            an objective is never measured; one sentence.
    """
    _check_reference(settings)
    with tempfile.TemporaryDirectory(prefix="lit_xai-") as folder:
        _check_options(settings, Path(folder))
        _check_metrics(settings, Path(folder))


def whole_config(settings: Settings, values: dict[str, Any], init_from: str | None = None) -> dict[str, Any]:
    """Return the whole configuration of a cell, all defaults spelled out.

    Args:
        settings: of the study.
        values: of the options that are searched, by name.
        init_from: the reference's checkpoint, for cells that start from it.

    Raises:
        ValueError: there is no such option, or no such config; one sentence.
    """
    config = copy.deepcopy(stacked(*settings.configs, *values.get("configs", [])))
    for name, value in settings.options.items():
        set_option(config, name, init_from if (name, value) == ("init_from", REFERENCE) else value, "options")
    for name, value in values.items():
        if name != "configs":
            set_option(config, name, value)
    return config


@cache
def stacked(*configs: str) -> dict[str, Any]:
    """Return what configurations add up to, all defaults spelled out; it is not to be modified.

    Args:
        configs: files or names.

    Raises:
        ValueError: one of them is wrong; one sentence.
    """
    import yaml

    found: dict[str, Any] = yaml.safe_load(_printed("fit", *(part for one in configs for part in ("--config", one))))
    if not found.get("model"):
        raise ValueError(f"configs expected a `model:`, but there is none in {', '.join(configs)}.")
    return found


def _check_reference(settings: Settings) -> None:
    given = settings.reference
    if isinstance(given, list):
        stacked(*given)
    elif given is not None and not Path(given).is_file():
        raise ValueError(f"reference expected a checkpoint or an ONNX file, but there is no file '{given}'.")
    needs = [name for name in settings.objectives if name in MEASURED]
    if settings.options.get("init_from") == REFERENCE:
        needs.append("init_from")
    if given is None and needs:
        raise ValueError(
            f"{needs[0]} needs a reference: add `reference: dense.ckpt`, or the configs of its run,"
            " `reference: [base, digits]` say."
        )


def _check_options(settings: Settings, folder: Path) -> None:
    """Refuse options that the command does not know, and values that they do not take."""
    search = dict(settings.search)
    stacks = search.pop("configs", Choices(([],)))
    if not isinstance(stacks, Choices) or not all(_is_configs(one) for one in stacks.values):
        raise ValueError("search['configs'] expected lists of names of configs, [[], [distillation]] say.")
    several = {
        name: _of_each_kind(one.values) if isinstance(one, Choices) else [one.low] for name, one in search.items()
    }
    for stack in stacks.values:
        for i in range(max(map(len, several.values()), default=1)):
            values = {name: each[i % len(each)] for name, each in several.items()}
            write_config(whole_config(settings, {"configs": stack, **values}), folder)
            _printed("fit", "--config", str(folder / CONFIG))
    if settings.reference is not None:
        options = [
            f"--{name}={value}" for name, value in compare_options(settings.objectives, settings.compare, "val").items()
        ]
        _printed("compare", "--config", str(folder / CONFIG), *options)


def _check_metrics(settings: Settings, folder: Path) -> None:
    """Refuse an objective that is neither measured nor logged: one batch of validation shows what is."""
    logged = [name for name in settings.objectives if name not in MEASURED]
    if not logged:
        return
    config = cell_config(copy.deepcopy(stacked(*settings.configs)), folder)
    config["trainer"] |= {"limit_val_batches": 1, "callbacks": config["trainer"]["callbacks"][-1:]}
    write_config(config, folder)
    try:
        known = list(CellRun(folder, settings).validate())
    except CellError as error:
        raise ValueError(f"objectives expected a validation that logs {logged[0]}, but it failed: {error}.") from None
    for name in logged:
        if name not in known:
            hint = nearest(name, [*known, *MEASURED]) or f" Logged are {', '.join(known) or 'none'}."
            raise ValueError(
                f"objectives expected names of what is measured, or logged in validation, but got {name!r}.{hint}"
            )


def _of_each_kind(values: Sequence[Any]) -> list[Any]:
    """Return the values that a parser may tell apart: of numbers one of each type.

    Example:
        >>> _of_each_kind([0.5, 0.25, 1, 2, None, "a", "b"])
        [0.5, 1, None, 'a', 'b']
    """
    kinds = {repr(one) if isinstance(one, (str, list, dict)) else type(one): one for one in reversed(values)}
    return list(reversed(kinds.values()))


def _is_configs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _printed(*arguments: str) -> str:
    """Return what a command prints of its configuration.

    Raises:
        ValueError: it is called wrongly; the sentence that it prints.
    """
    from lit_xai.cli import main

    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code: Any = main([*arguments, "--print_config"])
        except SystemExit as end:
            code = end.code
    if code:
        raise ValueError(" ".join(error.getvalue().split()).rpartition("lit-xai: error: ")[2] or f"exit code {code}")
    return out.getvalue()

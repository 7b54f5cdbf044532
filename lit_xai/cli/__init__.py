"""The command line: Lightning's own commands behind a thin dispatcher.

Nothing here imports torch before the command is known to need it: help, and the answer to a misspelled name, take
0.1 seconds instead of several.
"""

import sys
import textwrap
from collections.abc import Sequence

from lit_xai import __version__
from lit_xai.cli import compare as two_models
from lit_xai.cli import study as studies
from lit_xai.cli.configs import known_configs
from lit_xai.cli.export import HELP, export, spelled_out
from lit_xai.cli.files import check_files
from lit_xai.network.spelling import nearest

__all__ = ["main"]

_TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
_COMMANDS = (*_TRAINER_COMMANDS, "inspect", "export", "compare", "report", "check", "study", "demo")

_HELP = """\
lit-xai: shrink a Lightning model and see, in the same run, whether its explanations survive.

  lit-xai demo                                 train on real digits and look at the model's explanations
  lit-xai fit --config base --config digits --config attributions         configs stack, later ones win
  lit-xai fit --config base --model my_module.MyModel --data my_module.MyData     classes from this folder
  lit-xai inspect --config ...                 what each callback would do with the model, before training
  lit-xai fit ... --ckpt_path FILE             resume    (--init_from FILE: only its weights, epoch 0)
  lit-xai validate|test|predict --config logs/version_0/config.yaml --ckpt_path FILE
  lit-xai export --config logs/version_0/config.yaml --ckpt FILE [--int8]     as ONNX files
  lit-xai compare REFERENCE CANDIDATE --config data.yaml     a verdict on two models (check | report FOLDER)
  lit-xai study study.yaml                     many compressions, and those that no other beats
  lit-xai fit ... --print_config > mine.yaml   the whole configuration, to edit (fit --help: every option)
{configs}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 if it failed, 2 if it was called wrongly.

    Args:
        argv: the arguments after the program's name; default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    text = _help(arguments)
    if text is not None:
        sys.stdout.write(f"{text}\n")
        return 0
    try:
        arguments = _checked(arguments)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"lit-xai: error: {error}\n")
        return 2
    return _run(arguments)


def _help(arguments: Sequence[str]) -> str | None:
    """Return the text that the arguments ask for, ``None`` if they are a command to run."""
    command, *options = arguments
    if command in ("-h", "--help"):
        names = f"Configs by name: {', '.join(known_configs())}."
        return _HELP.format(configs=textwrap.fill(names, 109))
    if command == "--version":
        return f"lit-xai {__version__}"
    texts = {
        "export": HELP,
        "compare": two_models.HELP,
        "check": two_models.CHECK_HELP,
        "report": two_models.REPORT_HELP,
        "study": studies.HELP,
    }
    if command in texts and {"-h", "--help"} & set(options):
        return texts[command]
    return None


def _checked(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as the parser of their command takes them.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: there is no such command or config, or the options exclude each other.
    """
    command = arguments[0]
    if command not in _COMMANDS and not command.startswith("-"):
        hint = nearest(command, _COMMANDS) or f" Expected one of {', '.join(_COMMANDS)}."
        raise ValueError(f"there is no command '{command}'.{hint}")
    if command == "study":
        studies.check_arguments(arguments)
    if command in ("check", "report", "study"):
        return list(arguments)
    spelled = {"export": spelled_out, "compare": two_models.spelled_out}.get(command, list)
    checked: list[str] = spelled(arguments)
    check_files(checked)
    return checked


def _run(arguments: Sequence[str]) -> int:
    # The commands import torch: only the one that was named does, and only now.
    command = arguments[0]
    if command == "demo":
        from lit_xai.cli.demo import demo

        return demo(arguments[1:])
    if command == "export":
        return export(arguments)
    if command in ("compare", "report", "check"):
        return int(getattr(two_models, command)(arguments))
    if command == "study":
        return studies.study(arguments)
    if command == "inspect":
        from lit_xai.cli.inspecting import inspect

        return inspect(arguments)
    from lit_xai.cli.run import run

    return run(arguments)

"""The command line: Lightning's own commands behind a thin dispatcher.

Nothing here imports torch before a command that needs it was named.
"""

import sys
import textwrap
from collections.abc import Sequence

from lit_xai import __version__
from lit_xai.cli.configs import known_configs
from lit_xai.cli.export import HELP, export, spelled_out
from lit_xai.cli.files import check_files
from lit_xai.network.spelling import nearest

__all__ = ["main"]

_TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
_COMMANDS = (*_TRAINER_COMMANDS, "export", "demo")

_HELP = """\
lit-xai: shrink a Lightning model and see, in the same run, whether its reasons survived.

  lit-xai demo                                 train on real digits and look at the model's reasons
  lit-xai fit --config base --config digits --config attributions         configs stack, later ones win
  lit-xai fit --config base --model my_module.MyModel --data my_module.MyData     classes of this folder
  lit-xai fit ... --ckpt_path FILE             resume    (--init_from FILE: only its weights, epoch 0)
  lit-xai validate|test|predict --config logs/version_0/config.yaml --ckpt_path FILE
  lit-xai export --config logs/version_0/config.yaml --ckpt FILE [--int8]     as ONNX files
  lit-xai fit ... --print_config > mine.yaml   the whole configuration, to edit and pass as --config
  lit-xai fit --help                           every option

{configs}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 when it failed, 2 when it was called wrongly.

    Args:
        argv: the arguments after the program's name; default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        names = f"Configs by name: {', '.join(known_configs())}."
        return _say(_HELP.format(configs=textwrap.fill(names, 100)))
    if command == "--version":
        return _say(f"lit-xai {__version__}")
    if command not in _COMMANDS and not command.startswith("-"):
        hint = nearest(command, _COMMANDS) or f" Expected one of {', '.join(_COMMANDS)}."
        return _refuse(f"there is no command '{command}'.{hint}")
    if command == "export" and {"-h", "--help"} & set(arguments):
        return _say(HELP)
    try:
        arguments = spelled_out(arguments) if command == "export" else arguments
        check_files(arguments)
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    if command == "demo":
        from lit_xai.cli.demo import demo

        return demo(arguments[1:])
    if command == "export":
        return export(arguments)
    from lit_xai.cli.run import run

    return run(arguments)


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"lit-xai: error: {sentence}\n")
    return 2


def _say(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0

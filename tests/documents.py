"""What is done with the code blocks of the README and the pages in docs/.

Python blocks of a page are executed one after the other in one namespace, in an empty folder, by a Trainer that sees a
few batches an epoch. Blocks of YAML go on top of ``base`` and ``digits`` through the parser of ``lit-xai``, or are a
study, whose options are set. In shell blocks the commands of ``lit-xai`` are parsed with all their options, and of
other commands it is checked that what they name is there. Nothing is skipped: a block in another language is an error,
and ``text`` is for what is no code.

What a page needs beforehand stands in an HTML comment, ``<!--- invisible-code: python``, which readers do not see.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
import tomllib
import warnings
from pathlib import Path
from unittest import mock

from quick import quick_latencies
from sybil import Region, Sybil
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

from lit_xai.network.untouched import fork_rng

ROOT = Path(__file__).parents[1]

QUICK = {
    "ACCELERATOR": "cpu",
    "DEVICES": "1",
    "LIMIT_TRAIN_BATCHES": "3",
    "LIMIT_VAL_BATCHES": "1",
    "LIMIT_TEST_BATCHES": "1",
    "LOG_EVERY_N_STEPS": "1",
    "ENABLE_PROGRESS_BAR": "false",
    "ENABLE_MODEL_SUMMARY": "false",
}
"""Defaults of the Trainer, which it takes from the environment: a page's runs are to take seconds."""

OWN_MODULE = """
from lit_xai.data import Digits as MyData
from lit_xai.models import MLP, Classifier


class MyModel(Classifier):
    def __init__(self, width: int = 16):
        super().__init__(MLP(64, [width]), num_classes=10)
        self.save_hyperparameters()
"""
"""``my_module.py`` in the folder in which blocks run."""


def _start(namespace):
    stack = namespace["__stack__"] = contextlib.ExitStack()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    stack.enter_context(contextlib.chdir(folder))
    stack.enter_context(mock.patch.dict(os.environ, {f"PL_TRAINER_{name}": value for name, value in QUICK.items()}))
    stack.enter_context(quick_latencies())
    stack.enter_context(as_it_was())
    stack.enter_context(mock.patch.object(sys, "path", [str(ROOT / "docs"), str(folder), *sys.path]))
    stack.callback(sys.modules.pop, "my_module", None)
    (folder / "my_module.py").write_text(OWN_MODULE)
    (folder / "mine.yaml").write_text("trainer:\n  max_epochs: 3\n")
    (folder / "configs").symlink_to(ROOT / "configs")


@contextlib.contextmanager
def as_it_was():
    """Undo what pages register and seed: the tests that follow in this process know nothing of it."""
    from lit_xai.render import registry
    from lit_xai.structure import kinds

    with fork_rng(0), mock.patch.dict(kinds._registered), mock.patch.dict(registry._registered):
        yield


def _stop(namespace):
    namespace["__stack__"].close()


def _run_yaml(example):
    Path("page.yaml").write_text(example.parsed)
    if "objectives:" in example.parsed:
        _check_study(Path("page.yaml"))
        return
    _parse(["fit", "--config", "base", "--config", "digits", "--config", "page.yaml"])


def _check_study(path):
    """Have a study's options set, of its first cell."""
    from lit_xai.cli.study_checks import whole_config
    from lit_xai.cli.studying import read_study

    settings = read_study(path)
    whole_config(settings, {name: one.values[0] for name, one in settings.search.items()})


def _run_shell(example):
    for line in example.parsed.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            _check_command(words)


def _check_command(words):
    command, *arguments = words
    if command == "lit-xai":
        _parse(arguments)
    elif command == "make":
        for target in (one for one in arguments if "=" not in one):
            assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    elif [command, arguments[0]] == ["python", "main.py"]:  # the reader's own LightningCLI
        _parse(arguments[1:])
    elif command == "python" and arguments[0] != "-m":
        _check_script(*arguments)
    elif command in ("pip", "python"):
        _check_extras(arguments)
    else:
        assert command in ("cd", "echo", "git", "optuna-dashboard", "pytest", "ssh-keygen", "tensorboard"), (
            f"what is {command!r} in a page?"
        )


def _check_script(name, *options):
    if not (ROOT / name).exists():  # what an export writes
        assert name.endswith("infer.py"), name
        return
    source = (ROOT / name).read_text()
    for option in options:
        assert not option.startswith("--") or f'"{option}"' in source, f"{name} has no {option}"
        assert option.startswith("--") or option.isdecimal() or option in source, f"{name} knows no {option}"


def _check_extras(arguments):
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
        assert set(extras.split(",")) <= set(known), extras


def _parse(arguments):
    """Have the command line parse a command; nothing is trained."""
    from lit_xai.cli import main

    if arguments and arguments[0] == "demo":
        arguments = ["fit", "--config", "base", *arguments[1:]]
        arguments = [one for one in arguments if one != "--full"]
    if arguments and arguments[0] == "export":
        assert "--ckpt" in arguments, "lit-xai export needs --ckpt"
    if arguments and arguments[0] == "study":
        from lit_xai.cli.configs import find_study
        from lit_xai.cli.study import check_arguments

        check_arguments(arguments)
        assert arguments[1] == "study.yaml" or find_study(arguments[1])
        return
    if arguments and arguments[0] in ("check", "report"):  # of a folder that only the reader has
        with contextlib.redirect_stderr(io.StringIO()):
            assert main(arguments) == 1, arguments
        return
    if not arguments or {"--help", "--version"} & set(arguments):
        assert main(arguments) == 0
        return
    Path("logs/version_0").mkdir(parents=True, exist_ok=True)
    if not (run := Path("logs/version_0/config.yaml")).exists():
        run.write_text(_printed(["fit", "--config", "base", "--config", "digits"]))
    _printed(arguments)


def _printed(arguments):
    from lit_xai.cli import main

    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main([*arguments, "--print_config"])
    except SystemExit as stop:
        code = stop.code
    assert not code, f"lit-xai {shlex.join(arguments)}: {err.getvalue()}"
    return out.getvalue()


def _refuse(example):
    raise AssertionError(f"a block of {example.parsed!r} is not tested: make it python, yaml, bash or text")


TESTED = ("python", "pycon", "yaml", "bash")
UNTESTED = ("text",)  # and the directives of MyST, such as {figure}


def _other_blocks(document):
    for region in FencedCodeBlockLexer(language="[^\n]*")(document):
        language = region.lexemes["language"]
        if language not in (*TESTED, *UNTESTED) and not language.startswith("{"):
            yield Region(region.start, region.end, language, _refuse)


code_blocks = Sybil(
    parsers=[
        PythonCodeBlockParser(),
        CodeBlockParser(language="yaml", evaluator=_run_yaml),
        CodeBlockParser(language="bash", evaluator=_run_shell),
        _other_blocks,
    ],
    patterns=["README.md", "CONTRIBUTING.md", "docs/**/*.md", "docs/*.md"],
    path=str(ROOT),
    setup=_start,
    teardown=_stop,
)

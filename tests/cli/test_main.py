import subprocess
import sys
from pathlib import Path

import pytest

import lit_xai
from lit_xai.cli import main

HEAVY = ("torch", "lightning", "numpy", "captum", "jsonargparse")


def in_fresh_process(*arguments):
    code = f"import sys; from lit_xai.cli import main; main(sys.argv[1:]); print({{*sys.modules}} & {{*{HEAVY}}})"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(lit_xai.__file__).parents[1])},
    ).stdout


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_alone_it_prints_what_it_can_do_and_imports_no_torch(arguments):
    said = in_fresh_process(*arguments)
    assert said.endswith("set()\n")
    for part in ("fit", "validate|test|predict", "demo", "--ckpt_path", "--init_from", "attributions, base"):
        assert part in said
    assert 10 <= len(said.splitlines()) <= 14
    assert max(map(len, said.splitlines())) <= 110


def test_version_imports_no_torch():
    assert in_fresh_process("--version") == f"lit-xai {lit_xai.__version__}\nset()\n"


@pytest.mark.parametrize(
    ("command", "hint"),
    [("ft", "did you mean 'fit'?"), ("predit", "did you mean 'predict'?"), ("xyz", "expected one of fit, validate")],
)
def test_an_unknown_command_is_answered_with_the_nearest(command, hint, capsys):
    assert main([command]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lit-xai: error: there is no command '{command}': {hint}")
    assert error.count("\n") == 1


def test_help_of_a_command_lists_its_options(lit_xai, capsys):
    assert lit_xai("fit", "--help") == 0
    said = capsys.readouterr().out
    assert "--trainer.max_epochs" in said
    assert "--init_from" in said

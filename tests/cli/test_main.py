import subprocess
import sys
from pathlib import Path

import pytest

import lit_xai
from lit_xai.cli import main

HEAVY = ("torch", "lightning", "numpy", "captum", "jsonargparse")


def in_fresh_process(*arguments, code=0):
    command = (
        "import sys; from lit_xai.cli import main; code = main(sys.argv[1:]);"
        f"print({{*sys.modules}} & {{*{HEAVY}}}); sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(lit_xai.__file__).parents[1])},
    )
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_alone_it_prints_what_it_can_do_and_imports_no_torch(arguments):
    said = in_fresh_process(*arguments)
    assert said.endswith("set()\n")
    for part in ("fit", "validate|test|predict", "demo", "compare", "--ckpt_path", "--init_from", "attributions, base"):
        assert part in said
    assert 10 <= len(said.splitlines()) <= 16
    assert max(map(len, said.splitlines())) <= 110


def test_version_imports_no_torch():
    assert in_fresh_process("--version") == f"lit-xai {lit_xai.__version__}\nset()\n"


@pytest.mark.parametrize(
    ("command", "hint"),
    [("ft", "Did you mean 'fit'?"), ("predit", "Did you mean 'predict'?"), ("xyz", "Expected one of fit, validate")],
)
def test_an_unknown_command_is_answered_with_the_nearest(command, hint, capsys):
    assert main([command]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lit-xai: error: there is no command '{command}'. {hint}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("fit", "--config", "diggits"),
            "there is no config 'diggits': no such file in this folder, and no such name.",
        ),
        (("demo", "--config=base", "-c", "nope"), "there is no config 'nope': "),
        (("--config", "nope", "fit"), "there is no config 'nope': "),
        (("fit", "--init_from=no.ckpt"), "there is no file 'no.ckpt'."),
        (("test", "--config", "base", "--ckpt_path", "no.ckpt"), "there is no file 'no.ckpt'."),
    ],
)
def test_a_file_that_is_not_there_is_refused_before_torch_is_imported(arguments, sentence):
    imported, said = in_fresh_process(*arguments, code=2).splitlines()
    assert imported == "set()"
    assert said.startswith(f"lit-xai: error: {sentence}")


def test_help_of_a_command_lists_its_options(lit_xai, capsys):
    assert lit_xai("fit", "--help") == 0
    said = capsys.readouterr().out
    assert "--trainer.max_epochs" in said
    assert "--init_from" in said

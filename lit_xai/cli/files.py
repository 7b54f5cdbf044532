"""Checks of the files that a command line names, before torch is imported: a misspelled name is reported at once."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from lit_xai.cli.configs import find_config
from lit_xai.structure.checkpoints import require_file


def check_files(arguments: Sequence[str]) -> None:
    """Refuse configs and checkpoints that do not exist; other mistakes are left to the command's own parser.

    Args:
        arguments: the command and its options, as typed.

    Raises:
        OSError: there is no such checkpoint, or it is a folder.
        ValueError: there is no such config, or the options exclude each other.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", nargs="?", action="append", default=[])
    parser.add_argument("--init_from", nargs="?", type=_or_none)
    parser.add_argument("--ckpt_path", nargs="?", type=_or_none)
    # Nothing is loaded then, so files may be missing.
    parser.add_argument("-h", "--help", "--print_config", nargs="?", const=True, dest="only_prints")
    given, _ = parser.parse_known_args(arguments)
    for name in filter(None, given.config):
        find_config(name)
    if not given.only_prints:
        check_start(arguments[0], given.init_from, given.ckpt_path)


def _or_none(value: str) -> str | None:
    return None if value in ("null", "~") else value


def check_start(command: str, init_from: str | None, ckpt_path: str | None) -> None:
    """Refuse checkpoint files that do not exist, and two starting points at once.

    Args:
        command: ``fit``, ``validate`` ...
        init_from: a file; only ``fit`` uses it.
        ckpt_path: a file, or one of the words that :func:`is_file_name` tells from a file.

    Raises:
        OSError: there is no such file, or it is a folder.
        ValueError: both are given.
    """
    if command == "fit" and init_from:
        if ckpt_path:
            raise ValueError("--init_from starts afresh and --ckpt_path resumes: give one of them.")
        require_file(init_from)
    if is_file_name(ckpt_path):
        require_file(str(ckpt_path))


def is_file_name(ckpt_path: str | Path | None) -> bool:
    """Return whether this names a local file, rather than "best", a model registry's entry or a folder of shards.

    Example:
        >>> is_file_name("logs/version_0/checkpoints/last.ckpt"), is_file_name("last")
        (True, False)
    """
    # Lightning's own words for ckpt_path, and its prefix for a model registry.
    words = ("best", "last", "hpc")
    named = bool(ckpt_path) and ckpt_path not in words and not str(ckpt_path).startswith("registry")
    return named and "://" not in str(ckpt_path) and not Path(str(ckpt_path)).is_dir()

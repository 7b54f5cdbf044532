"""A parser that reports a mistake in one line instead of the whole list of options."""

import inspect
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile
from lightning.pytorch.cli import LightningArgumentParser

from lit_xai.cli.config_files import check_config
from lit_xai.cli.configs import find_config
from lit_xai.cli.errors import is_users_own, without_wrappers
from lit_xai.cli.sentences import explain, mark


class Parser(LightningArgumentParser):
    """The parser of a command; jsonargparse makes one of the same class for every class named in a configuration.

    Args:
        **kwargs: of LightningArgumentParser. Abbreviated options are off: ``--trainer.max_epoch`` is a mistake, and
            nothing should depend on which options happen to begin alike.
    """

    reading: str | None = None
    """The configuration that is being read, to name it where it cannot be parsed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self._owner, self._is_abstract = "this function", False

    def add_class_arguments(self, theclass: type, *args: Any, **kwargs: Any) -> list[str]:
        """Add the arguments of a class, and remember its name for error messages."""
        self._owner, self._is_abstract = theclass.__name__, inspect.isabstract(theclass)
        return super().add_class_arguments(theclass, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line on the mistake and exit with 2; an error inside a user's own module keeps its traceback."""
        if not self.exit_on_error:  # the parser of a class: jsonargparse puts its message into the command's report
            if self._is_abstract:  # jsonargparse before 4.50 reads arguments for it all the same
                super().error(f"Expected an instantiatable class, but {self._owner} is abstract", ex)
            names = [action.dest for action in self._actions if not action.dest.endswith("help")]
            super().error(mark(explain(message, names, self._owner)), ex)
        if ex is not None and is_users_own(cause := without_wrappers(ex)):
            raise cause
        parser = getattr(ex, "subcommand_parser", self)
        options = [name for action in parser._actions for name in action.option_strings if not name.endswith(".help")]
        self.exit(2, f"lit-xai: error: {self._place()}{explain(message, options).removeprefix(': ')}\n")

    def _place(self) -> str:
        return f"in config '{self.reading}': " if self.reading else ""


class ConfigByName(ActionConfigFile):
    """``--config NAME``: a file, or a name that :func:`~lit_xai.cli.configs.find_config` knows."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the configuration into ``cfg``."""
        try:
            path = find_config(values)
        except ValueError as error:
            parser.error(str(error))
        parser.reading = values
        try:
            if Path(path).is_file():
                check_config(path)
            super().__call__(parser, cfg, path, option_string)
        except (OSError, ValueError) as error:
            parser.error(str(error), error)
        parser.reading = None

"""A parser that answers mistakes with one sentence instead of its whole list of options."""

from typing import Any, NoReturn

from jsonargparse import ActionConfigFile
from lightning.pytorch.cli import LightningArgumentParser

from lit_xai.cli.configs import find_config
from lit_xai.cli.errors import is_users_own, without_wrappers
from lit_xai.cli.sentences import explain
from lit_xai.network.spelling import nearest


class Parser(LightningArgumentParser):
    """The parser of a command, and, as jsonargparse makes them of the same class, of every class named in a config.

    Args:
        **kwargs: of LightningArgumentParser. Abbreviated options are off: ``--trainer.max_epoch`` is a mistake, and
            nothing should depend on which options happen to begin alike.
    """

    reading: str | None = None
    """The configuration that is being read, to name it where it cannot be parsed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say in one sentence what is wrong and exit with 2; an error of the user's own module keeps its traceback."""
        if not self.exit_on_error:  # a class named in a config: the report goes on to the command's parser
            super().error(message + self._names_near(message), ex)
        if ex is not None and is_users_own(cause := without_wrappers(ex)):
            raise cause
        parser = getattr(ex, "subcommand_parser", self)
        options = [name for action in parser._actions for name in action.option_strings if not name.endswith(".help")]
        self.exit(2, f"lit-xai: error: {self._place()}{explain(message, options)}\n")

    def _names_near(self, message: str) -> str:
        if not message.startswith("Option '"):
            return ""
        names = [action.dest for action in self._actions if not action.dest.endswith("help")]
        return "." + (nearest(message.split("'")[1], names) or f" It takes {', '.join(names)}.")

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
        super().__call__(parser, cfg, path, option_string)
        parser.reading = None

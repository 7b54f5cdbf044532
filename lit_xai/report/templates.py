"""Pages from templates in this folder: what the user wrote is escaped, and nothing is left undefined."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lit_xai.report import words

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def template(name: str, folder: Path | None = None) -> "Template":
    """Return a template of this folder, or of another, which may use those of this one.

    Args:
        name: of its file.
        folder: where it is, if elsewhere.

    Example:
        >>> template("macros.html").name
        'macros.html'
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # imported when used

    environment = Environment(
        loader=FileSystemLoader([*filter(None, [folder]), Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": words.number, "interval": words.interval, "text": words.plain_text}
    return environment.get_template(name)

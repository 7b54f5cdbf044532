"""Checks of a configuration file before it is read: YAML can say more than a configuration can mean."""

import re
from pathlib import Path
from typing import Any

DEEPEST = 40
"""How many lists and mappings may lie in each other; the shipped configurations need 8."""

MOST = 10_000
"""How many values a file may have once its aliases are spelled out; jsonargparse takes 4 s for as many options."""

LARGEST = 1_000_000
"""How many bytes a file may have."""


def check_config(path: str | Path) -> None:
    """Refuse a file that is no configuration: no UTF-8, not one mapping of names, too deep or too large.

    Its size is found without building it, since aliases make a few lines stand for a billion values. A name that stands
    twice in a mapping is refused as well, where YAML drops the first without a word.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: says what is wrong, and in which line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.yaml"
        >>> _ = path.write_text("trainer: {max_epochs: 2, max_epochs: 3}")
        >>> check_config(path)
        Traceback (most recent call last):
        ...
        ValueError: line 1 gives 'max_epochs' a second time in one mapping: leave one out.
    """
    import yaml

    text, structure = _text(Path(path)), _Structure()
    try:
        for event in yaml.parse(text, Loader=_loader()):
            structure.add(event)
        value = _built(text)
    except yaml.YAMLError as error:
        raise ValueError(f"no valid YAML: {_one_line(error)}") from None
    _check_names(value)


def read_config(path: str | Path) -> Any:
    """Return the plain values of a file, after :func:`check_config`; ``1e-3`` is a number, as on the command line.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no configuration.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Knows a number without a decimal point, which YAML 1.1 calls a text."""

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    check_config(path)
    return yaml.load(_text(Path(path)), Loader=Loader)


def _built(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_loader())
    # What is written like a number or a date need not be one, and what is no mapping cannot be merged.
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"no valid YAML: {_one_line(error)}") from None


def _check_names(value: Any) -> None:
    if value is None:
        raise ValueError("expected names and their values, but it is empty.")
    if not isinstance(value, dict):
        raise ValueError(f"expected names and their values, but got a {type(value).__name__}.")
    if strange := [name for name in value if not isinstance(name, str)]:
        raise ValueError(f"expected names of options, but got {strange[0]!r}.")
    if not isinstance(value.get("trainer"), dict | None):  # jsonargparse would leave it out without a word
        raise ValueError(f"trainer: expected names and their values, but got a {type(value['trainer']).__name__}.")


def _loader() -> Any:
    import yaml

    # The one in C where there is one: it reads a megabyte in a second.
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _one_line(error: Exception) -> str:
    sentence = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
    return f"{sentence.rstrip('.')}."


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"expected at most {LARGEST:,} bytes, but got {path.stat().st_size:,}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"expected text in UTF-8, but got the byte 0x{content[error.start]:02x} in line {line}: save it as UTF-8."
        ) from None


class _Open:
    """A list or mapping whose end was not read yet: how much is in it, and the names that it gave."""

    def __init__(self, anchor: str | None, is_mapping: bool) -> None:
        self.anchor, self.is_mapping = anchor, is_mapping
        self.values, self.height, self.names, self.at_name = 1, 1, set[str](), True


class _Structure:
    """What the events of a YAML file add up to, with each alias as much as it stands for."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._known: dict[str, tuple[int, int]] = {}
        self._documents = 0

    def add(self, event: Any) -> None:
        """Add the next event.

        Raises:
            ValueError: the file is larger than allowed so far, refers to itself, or gives a name twice.
        """
        kind, line = type(event).__name__, event.start_mark.line + 1
        if kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise ValueError(f"expected one document, but line {line} begins another.")
        elif kind in ("SequenceStartEvent", "MappingStartEvent"):
            self._open.append(_Open(event.anchor, kind == "MappingStartEvent"))
            self._require_size(0, 0, line)
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            done = self._open.pop()
            self._take(done.anchor, done.values, done.height, line)
        elif kind == "ScalarEvent":
            self._check_name(event.value, line)
            self._take(event.anchor, 1, 0, line)
        elif kind == "AliasEvent":
            if event.anchor not in self._known:
                raise ValueError(f"line {line} refers to *{event.anchor}, which is not given before.")
            self._take(None, *self._known[event.anchor], line)

    def _check_name(self, name: str, line: int) -> None:
        around = self._open[-1] if self._open else None
        if around is None or not around.is_mapping or not around.at_name:
            return
        if name in around.names:
            raise ValueError(f"line {line} gives '{name[:100]}' a second time in one mapping: leave one out.")
        if name != "<<":  # merges may be several
            around.names.add(name)

    def _take(self, anchor: str | None, values: int, height: int, line: int) -> None:
        """Count a whole value as part of the collection around it."""
        if anchor is not None:
            self._known[anchor] = values, height
        if self._open:
            around = self._open[-1]
            around.at_name = not around.at_name
            self._require_size(values, height, line)
            around.values += values
            around.height = max(around.height, height + 1)

    def _require_size(self, values: int, height: int, line: int) -> None:
        if len(self._open) + height > DEEPEST:
            raise ValueError(f"expected at most {DEEPEST} lists and mappings in each other, but line {line} has more.")
        if self._open[-1].values + values > MOST:
            raise ValueError(f"expected at most {MOST:,} values, but there are more from line {line} on.")

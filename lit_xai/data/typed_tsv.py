"""Reader of tab-separated files whose header gives each column a type, as recommender datasets are published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

_TYPES: dict[str, Callable[[str], Any]] = {"token": str, "float": float, "token_seq": str.split}


def read_typed_tsv(path: str | Path) -> dict[str, list[Any]]:
    """Return the columns of a tab-separated file with a header of ``name:type``.

    The types are ``token`` (text), ``float`` and ``token_seq`` (a list of words).

    Args:
        path: of the file.

    Raises:
        ValueError: a column has no such type, a line has other columns than the header, or a number is none; names the
            line.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "some.item")
        ...     _ = path.write_text("item_id:token\\tprice:float\\tgenres:token_seq\\n7\\t2.5\\tDrama War\\n")
        ...     read_typed_tsv(path)
        {'item_id': ['7'], 'price': [2.5], 'genres': [['Drama', 'War']]}
    """
    with open(path, encoding="utf-8") as file:
        header = file.readline().rstrip("\n").split("\t")
        names, types = [], []
        for column in header:
            name, _, kind = column.partition(":")
            if kind not in _TYPES:
                known = ", ".join(_TYPES)
                raise ValueError(f"'{path}' expected a header of columns 'name:type' of {known}, but got {column!r}.")
            names.append(name)
            types.append(_TYPES[kind])
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for number, line in enumerate(file, start=2):
            cells = line.rstrip("\n").split("\t")
            if len(cells) != len(names):
                raise ValueError(f"'{path}', line {number}, expected {len(names)} columns, but got {len(cells)}.")
            for name, convert, cell in zip(names, types, cells, strict=True):
                columns[name].append(_value(convert, cell, f"'{path}', line {number}, {name}"))
    return columns


def _value(convert: Callable[[str], Any], cell: str, where: str) -> Any:
    try:
        return convert(cell)
    except ValueError:
        raise ValueError(f"{where}, expected a number, but got {cell!r}.") from None

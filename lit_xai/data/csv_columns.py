"""CSV files as columns of text that know the lines they are from."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_xai.network.check import refusal


@dataclass(frozen=True)
class CsvColumns:
    """The columns of one or more CSV files, one after the other.

    Args:
        columns: the values of all rows, by the names of the header.
        places: file and line of each row.
    """

    columns: dict[str, list[str]]
    places: Sequence[tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.places)

    def place(self, row: int) -> str:
        """Return where a row is, in words."""
        path, line = self.places[row]
        return f"line {line} of '{path}'"

    def followed_by(self, other: "CsvColumns") -> "CsvColumns":
        """Return the rows of both.

        Raises:
            ValueError: the second one lacks a column.
        """
        for name in self.columns:
            if name not in other.columns:
                raise refusal(f"'{other.places[0][0]}'", f"the columns of '{self.places[0][0]}'", f"no column {name!r}")
        joined = {name: values + other.columns[name] for name, values in self.columns.items()}
        return CsvColumns(joined, [*self.places, *other.places])


def read_csv(path: Path, delimiter: str = ",") -> CsvColumns:
    """Read a CSV file (UTF-8) whose first line names the columns.

    Args:
        path: of the file.
        delimiter: between values.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it has no rows, no names, a name twice, or a row with more or fewer values than names.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "people.csv")
        ...     _ = path.write_text("age,job\\n30,nurse\\n")
        ...     found = read_csv(path)
        >>> found.columns, found.places[0][1]
        ({'age': ['30'], 'job': ['nurse']}, 2)
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no CSV file '{path}': set path to one.")
    rows: list[list[str]] = []
    places: list[tuple[Path, int]] = []
    # utf-8-sig: spreadsheets write a mark before the first name.
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            for row in reader:
                if row and len(row) != len(names):
                    raise refusal(f"Line {reader.line_num} of '{path}'", f"{len(names)} values", len(row))
                if row:
                    rows.append([value.strip() for value in row])
                    places.append((path, reader.line_num))
        except UnicodeDecodeError:
            raise ValueError(
                f"'{path}' expected a CSV file in UTF-8, but {_undecodable(path)}: save it as that."
            ) from None
        except csv.Error as error:
            raise ValueError(f"'{path}' expected a CSV file, but got: {error}.") from None
    other = next(
        (mark for mark in (";", "\t", "|", ",") if len(names) == 1 and mark in names[0].replace(delimiter, "")), None
    )
    if other is not None:
        raise ValueError(
            f"'{path}' expected values with {delimiter!r} between them, but its first line holds {other!r} in its"
            f" place: set delimiter={other!r}."
        )
    if len(set(names)) != len(names) or "" in names:
        wrong = next(name for name in names if not name or names.count(name) > 1)
        raise refusal(f"'{path}'", "a first line with a different name for each column", wrong)
    if not rows:
        raise ValueError(f"'{path}' expected a line of names and lines of values, but has no values.")
    return CsvColumns({name: [row[k] for row in rows] for k, name in enumerate(names)}, places)


def _undecodable(path: Path) -> str:
    """Return in words where a file is no UTF-8."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return f"line {number} holds the byte 0x{line[error.start]:02x}"
    return "it ends within a letter"

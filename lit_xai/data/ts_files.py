"""Reader of ``.ts`` files, in which the UEA and UCR archives publish series."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TSFile:
    """Content of a ``.ts`` file.

    Args:
        series: one array ``(channels, length)`` per case, float64; lengths may differ.
        labels: the index of each case's class ``(N,)``, int64.
        class_names: as the file's header lists them.
    """

    series: list[NDArray[np.float64]]
    labels: NDArray[np.int64]
    class_names: list[str]


def read_ts(path: str | Path) -> TSFile:
    """Read a ``.ts`` file of labeled series, with one or several channels.

    After a header of ``@name value`` lines comes one case per line: its channels, separated by colons, each of numbers
    separated by commas, and its class.

    Args:
        path: of the file.

    Raises:
        ValueError: the file has no classes, time stamps or missing values, or a line is no such case; names the line.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "tones.ts")
        ...     _ = path.write_text("@classLabel true low high\\n@data\\n1,2,3:4,5,6:high\\n7,8:9,0:low\\n")
        ...     tones = read_ts(path)
        >>> [series.shape for series in tones.series], tones.labels.tolist(), tones.class_names
        ([(2, 3), (2, 2)], [1, 0], ['low', 'high'])
    """
    header: dict[str, list[str]] = {}
    cases: list[tuple[NDArray[np.float64], str]] = []
    with open(path, encoding="utf-8") as lines:
        for number, raw in enumerate(lines, start=1):
            line, where = raw.strip(), f"'{path}', line {number}"
            if not line or line.startswith("#"):
                continue
            if line.startswith("@") and "data" not in header:
                name, *values = line[1:].split()
                header[name.lower()] = values
                if name.lower() == "data":
                    _check_header(header, str(path))
            elif "data" in header:
                cases.append(_read_case(line, where))
            else:
                raise ValueError(f"{where}, expected a header line such as '@data', but got {line[:40]!r}.")
    if not cases:
        raise ValueError(f"'{path}' expected a line '@data' and cases below it, but got none.")
    names = header["classlabel"][1:]
    return TSFile([series for series, _ in cases], _indices([label for _, label in cases], names, path), names)


def _check_header(header: dict[str, list[str]], path: str) -> None:
    if header.get("timestamps", ["false"])[0].lower() == "true":
        raise ValueError(f"'{path}' expected series without time stamps, but its header has '@timeStamps true'.")
    if header.get("classlabel", ["false"])[0].lower() != "true" or len(header["classlabel"]) < 2:
        raise ValueError(f"'{path}' expected classes in its header, as in '@classLabel true low high', but got none.")


def _read_case(line: str, where: str) -> tuple[NDArray[np.float64], str]:
    *channels, label = line.split(":")
    try:
        rows = [np.array(channel.split(","), dtype=np.float64) for channel in channels]
    except ValueError as error:
        hint = ": fill in or drop missing values ('?') first" if "?" in line else ""
        raise ValueError(f"{where}, expected numbers separated by commas, but got {error}{hint}.") from None
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ValueError(f"{where}, expected channels of one length and a class, but got lengths {lengths}.")
    return np.stack(rows), label.strip()


def _indices(labels: list[str], names: list[str], path: str | Path) -> NDArray[np.int64]:
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise ValueError(f"'{path}' expected the classes of its header, {', '.join(names)}, but got {unknown[0]!r}.")
    return np.array([names.index(label) for label in labels], dtype=np.int64)

"""Cost and quality before and after compression: one table that reads on a console and in TensorBoard's texts."""

import math
from collections.abc import Mapping, Sequence

Number = float | int | None
MINUS = "\N{MINUS SIGN}"

# What a row measures: its units (from which value on, how it is written, how much of it is one), and the word for less.
Units = tuple[tuple[float, str, float], ...]
_COUNT: Units = ((1e9, "G", 1e9), (1e5, "M", 1e6), (1e3, "k", 1e3), (0, "", 1))
_MEASURES: dict[str, tuple[Units, str]] = {
    "params": (_COUNT, "fewer"),
    "parameters": (_COUNT, "fewer"),
    "macs": (tuple((least, f"{unit} MACs".strip(), one) for least, unit, one in _COUNT), "fewer"),
    "size": (((1e9, "GB", 1e9), (1e5, "MB", 1e6), (1e3, "kB", 1e3), (0, "bytes", 1)), "smaller"),
    "latency": (((1e3, "s", 1e3), (0.1, "ms", 1), (0, "µs", 1e-3)), "faster"),
}
_MORE = {"fewer": "more", "smaller": "larger", "faster": "slower"}


def before_after_table(rows: Mapping[str, tuple[Number, Number]], heads: tuple[str, str] = ("before", "after")) -> str:
    """Return values before and after, and their ratio, as a markdown table that is aligned as plain text too.

    The first word of a row is its kind: ``params`` and ``MACs`` are counts, ``size`` is in bytes, ``latency`` in
    milliseconds, and everything else is a metric, whose change is the difference.

    Args:
        rows: the values before and after, by name; ``None`` or NaN is a missing value.
        heads: what the two columns are called.

    Example:
        >>> rows = {"params": (272474, 68138), "size on disk": (1.1e6, None), "latency": (3.2, 1.6), "acc": (0.9, 0.92)}
        >>> print(before_after_table(rows))
        |              | before |   after | change      |
        |:-------------|-------:|--------:|:------------|
        | params       | 0.27 M | 0.068 M | 4.0x fewer  |
        | size on disk | 1.1 MB |       - | -           |
        | latency      | 3.2 ms |  1.6 ms | 2.0x faster |
        | acc          |    0.9 |    0.92 | +0.02       |
    """
    cells = [[name, *_values(name, *pair), _change(name, *pair)] for name, pair in rows.items()]
    return markdown_table(["", *heads, "change"], cells, left=(0, 3))


def write_number(name: str, value: float) -> str:
    """Return a value in the units of its kind, as in :func:`before_after_table`.

    Example:
        >>> write_number("MACs", 12_100_000), write_number("size", 411_500)
        ('12 M MACs', '0.41 MB')
    """
    return _written(value, _measure(name), abs(value))


def _measure(name: str) -> tuple[Units, str] | None:
    return _MEASURES.get((name.lower().split() or [""])[0])


def _values(name: str, before: Number, after: Number) -> list[str]:
    measure, known = _measure(name), [abs(v) for v in (before, after) if v is not None and math.isfinite(v)]
    # The same unit for both, so that they compare at a glance; the smaller one's own where it would drown.
    alike = len(known) == 2 and max(known) < 1000 * min(known)
    return [
        "-" if value is None or math.isnan(value) else _written(value, measure, max(known) if alike else abs(value))
        for value in (before, after)
    ]


def _written(value: float, measure: tuple[Units, str] | None, size: float) -> str:
    if measure is None or not math.isfinite(value):
        return f"{value:.4g}".replace("-", MINUS)
    _, unit, one = next(entry for entry in measure[0] if size >= entry[0])
    value /= one
    # About two digits; the bounds are where rounding would add one.
    decimals = next((n for n, least in enumerate((9.95, 0.995, 0.0995)) if abs(value) >= least), 3)
    return f"{value:.{decimals if one != 1 or unit == 'ms' else 0}f} {unit}".strip()


def _change(name: str, before: Number, after: Number) -> str:
    if before is None or after is None or math.isnan(before - after):
        return "-"
    measure = _measure(name)
    if measure is None:
        return f"{after - before:+.3g}".replace("-", MINUS)
    low, high = sorted((before, after))
    if high == low:
        return "same"
    if low <= 0 or math.isinf(high):
        return "-"
    ratio = high / low
    decimals = next(n for n, least in ((0, 9.95), (1, 1.095), (2, 0)) if ratio >= least)
    return f"{ratio:.{decimals}f}x {measure[1] if after < before else _MORE[measure[1]]}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Return a markdown table whose columns are as wide as their widest cell, flush right but for those in ``left``.

    Example:
        >>> print(markdown_table(["layer", "n"], [["conv", "16"]]))
        | layer |  n |
        |:------|---:|
        | conv  | 16 |
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = [":" + "-" * (w + 1) if i in left else "-" * (w + 1) + ":" for i, w in enumerate(widths)]
    lines = [
        " | ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        for cells in (header, *rows)
    ]
    return "\n".join([f"| {lines[0]} |", f"|{'|'.join(rule)}|", *(f"| {line} |" for line in lines[1:])])

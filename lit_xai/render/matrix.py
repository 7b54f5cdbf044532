"""Translations: a matrix for each, what every token that is written owes to every token that was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_xai.network.token_names import TokenNames
from lit_xai.render.canvas import (
    BAR,
    GREY,
    INK,
    LINE,
    MARGIN,
    SMALL,
    WIDTH,
    Canvas,
    color_scale,
    plain_style,
    to_colors,
)
from lit_xai.render.shares import Array, ArrayLike, shares_of_total, to_array
from lit_xai.render.text import shorten, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST, ROW, WIDEST_CELL = 4, 26, 60
MOST_TOKENS = 20
"""Of either side; longer texts are cut."""
SIDE = 150
"""Room for the words on the left and on the right."""
LIMIT = 0.5
"""The share of a row's total at which colors end, the same in every figure."""
ENDS = ("against it", "for the token")
GUIDE = ("rows: tokens written · columns: tokens read", "right: what it would write itself, bold where that differs")
"""What stands where; the second line where it is known what the network would write."""


@dataclass(frozen=True)
class _Page:
    """One sample: its cells as shares of each row's total, and its words."""

    shares: Array
    read: list[str]
    written: list[str]
    predicted: list[str]

    @property
    def head(self) -> float:
        """The height of the words above the matrix, which are written upwards."""
        return max((text_width(word, SMALL) for word in self.read), default=0) + 10

    @property
    def height(self) -> float:
        return 2 * LINE + self.head + ROW * len(self.written) + 28


def matrix_figure(
    matrices: Sequence[ArrayLike],
    read: Sequence[ArrayLike],
    written: Sequence[ArrayLike],
    *,
    predicted: Sequence[ArrayLike] | None = None,
    token_names: Sequence[str] | None = None,
    title: str = "",
    shows_inputs: bool = True,
) -> Figure:
    """Draw matrices of attributions: a row for each token written, a column for each token read.

    Every row is divided by its own total, so that one color means the same share everywhere. Beside a row stands what
    the network itself would have written there; bold where that is another token.

    Args:
        matrices: ``(T, S)`` of each sample; at most 4 are drawn.
        read: the tokens read, ids ``(S,)`` of each.
        written: the tokens written, ids ``(T,)`` of each.
        predicted: the network's own, ids ``(T,)`` of each.
        token_names: by id; default the ids.
        title: of the figure.
        shows_inputs: whether tokens are written out; else their places stand for them.

    Raises:
        ValueError: a matrix has not as many rows and columns as there are tokens.

    Example:
        >>> import numpy as np
        >>> figure = matrix_figure([np.eye(2)], [np.array([1, 2])], [np.array([2, 0])], token_names=["a", "b", "c"])
        >>> figure.canvas.get_width_height()[0]
        700
    """
    names = TokenNames(token_names)
    guesses = written if predicted is None else predicted
    pages = [
        _page(matrix, ids, target, guess, names, shows_inputs)
        for matrix, ids, target, guess in list(zip(matrices, read, written, guesses, strict=True))[:MOST]
    ]
    with plain_style():
        left_out = len(matrices) - len(pages)
        guide = GUIDE[: 1 if predicted is None else 2]
        height = LINE * len(guide) + 8 + sum(page.height for page in pages) + BAR + LINE
        canvas = Canvas(title, round(height), ends=ENDS)
        for k, line in enumerate(guide):
            canvas.text(MARGIN, canvas.top + LINE * k, line, size=SMALL, color=GREY)
        scale = color_scale(LIMIT)
        y = float(canvas.top + LINE * len(guide) + 8)
        for page in pages:
            _draw(canvas, page, y, to_colors(scale, page.shares))
            y += page.height
        note = f"{left_out} more not shown" if left_out else ""
        canvas.text(MARGIN, canvas.height - BAR - LINE, note, size=SMALL, color=GREY)
        canvas.color_bar(scale, LIMIT, "share of the row's Σ|a|")
        return canvas.finish()


def _page(
    matrix: ArrayLike, read: ArrayLike, written: ArrayLike, guess: ArrayLike, names: TokenNames, shows_inputs: bool
) -> _Page:
    values = to_array(matrix, "matrices")
    if values.shape != (len(written), len(read)):
        expected = (len(written), len(read))
        raise ValueError(f"matrices expected shape {expected}, tokens by tokens, but got {values.shape}.")
    rows, columns = (min(size, MOST_TOKENS) for size in values.shape)
    words = [
        [names.name(int(token)) if shows_inputs else f"{place}" for place, token in enumerate(tokens[:most])]
        for tokens, most in ((read, columns), (written, rows), (guess, rows))
    ]
    return _Page(shares_of_total(values).values[:rows, :columns] if values.size else values[:rows, :columns], *words)


def _draw(canvas: Canvas, page: _Page, y: float, colors: Array) -> None:
    rows, columns = page.shares.shape
    joined = [_joined(words) for words in (page.read, page.written)]
    canvas.text(MARGIN, y, joined[0], width=WIDTH - 2 * MARGIN)
    canvas.text(MARGIN, y + LINE, f"\N{RIGHTWARDS ARROW} {joined[1]}", width=WIDTH - 2 * MARGIN)
    top, left = y + 2 * LINE + page.head, MARGIN + SIDE
    cell = min(WIDEST_CELL, (WIDTH - 2 * MARGIN - 2 * SIDE) / max(columns, 1))
    for column, word in enumerate(page.read):
        x = left + (column + 0.5) * cell
        canvas.text(x, top - 5, word, size=SMALL, rotation=90, ha="center", va="bottom")
    for row, (word, guess) in enumerate(zip(page.written, page.predicted, strict=True)):
        middle = top + (row + 0.5) * ROW
        room = SIDE - 12
        canvas.text(left - 8, middle, shorten(word, room, SMALL), size=SMALL, ha="right", va="center")
        is_other = word != guess
        weight, color = ("bold", INK) if is_other else ("normal", GREY)
        words = shorten(guess, room, SMALL, weight)
        canvas.text(left + columns * cell + 8, middle, words, size=SMALL, va="center", weight=weight, color=color)
    if rows and columns:
        canvas.tile(colors, left, top, columns * cell, rows * ROW)


def _joined(words: Sequence[str]) -> str:
    """Return tokens as one text; marks of tokenizers are read by eye."""
    kept = [word for word in words if not (word.startswith("[") and word.endswith("]"))]
    return " ".join(kept).replace(" ##", "")

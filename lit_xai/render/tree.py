"""A decision tree as indented questions, one line each, with what its leaves say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_xai.render.canvas import GREY, INK, LINE, MARGIN, SMALL, TEXT, WIDTH, Canvas, plain_style
from lit_xai.render.text import wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INDENT, ROW = 26, 30
"""Pixels from one depth to the next, and from one line to the next."""
ANSWER, BAR, NUMBERS = 40, 70, 138
"""Widths of "yes" and "no", of the longest bar, and of a bar with its number."""
COLORS = ("#2a7f9e", "#d9822b", "#6a51a3", "#3f8f4f", "#a6563c", "#7f7f7f", "#b05a9b", "#8c8b2e", "#4b6bb0", "#c44f4f")
"""Of the classes' bars; none is the red or blue that means for and against."""


PALE = "#8c8c8c"
"""Of a tree that is not to be believed."""


@dataclass(frozen=True)
class TreeNode:
    """A question with two answers, or a leaf.

    Args:
        text: the question, or what the leaf says.
        share: of the samples that come here, from 0 to 1.
        kind: of a leaf: the number of its class, for the color.
        yes: where the answer leads.
        no: likewise.
    """

    text: str
    share: float
    kind: int = 0
    yes: TreeNode | None = None
    no: TreeNode | None = None


@dataclass(frozen=True)
class _Line:
    node: TreeNode
    depth: int
    answer: str
    parent: int | None


def tree_figure(trees: Sequence[tuple[str, TreeNode]], title: str = "", summary: str = "", caution: str = "") -> Figure:
    """Draw decision trees, one below the other, as questions that are indented by their depth.

    Args:
        trees: each with its heading.
        title: of the figure.
        summary: written below it.
        caution: why the first tree is not to be believed: framed above everything, and that tree is pale.

    Example:
        >>> tree = TreeNode("age ≤ 30", 1.0, yes=TreeNode("low (90%)", 0.6), no=TreeNode("high (75%)", 0.4, kind=1))
        >>> tree_figure([("", tree)], "a tree").canvas.get_width_height()
        (700, 151)
    """
    with plain_style():
        lines = wrap(summary, WIDTH - 2 * MARGIN, SMALL, "normal", most=8)
        warning = wrap(caution, WIDTH - 2 * MARGIN - 24, TEXT, "bold", most=4)
        framed = LINE * len(warning) + 24 if warning else 0
        parts = [
            (wrap(heading, WIDTH - 2 * MARGIN, TEXT, "bold", most=2), list(_lines(tree))) for heading, tree in trees
        ]
        height = framed + LINE * len(lines) + sum(LINE * len(head) + ROW * len(rows) + 16 for head, rows in parts)
        canvas = Canvas(title, height)
        y: float = canvas.top
        if warning:
            _frame(canvas, warning, y)
            y += framed
        for line in lines:
            canvas.text(MARGIN, y, line, size=SMALL, color=GREY)
            y += LINE
        for place, (head, rows) in enumerate(parts):
            for line in head:
                canvas.text(MARGIN, y, line, weight="bold")
                y += LINE
            _draw(canvas, rows, y, PALE if warning and not place else INK)
            y += ROW * len(rows) + 16
        return canvas.finish()


def _lines(node: TreeNode, depth: int = 0, answer: str = "", parent: int | None = None, at: int = 0) -> Iterator[_Line]:
    """Yield a tree's lines from top to bottom, each with the place of the question that it answers."""
    yield _Line(node, depth, answer, parent)
    if node.yes is not None and node.no is not None:
        below = list(_lines(node.yes, depth + 1, "yes", at, at + 1))
        yield from below
        yield from _lines(node.no, depth + 1, "no", at, at + 1 + len(below))


def _frame(canvas: Canvas, lines: Sequence[str], top: float) -> None:
    """Draw words that nobody overlooks; amber, since red and blue mean for and against."""
    from matplotlib.patches import Rectangle

    box = (MARGIN, top), WIDTH - 2 * MARGIN, LINE * len(lines) + 12
    canvas.axes.add_patch(Rectangle(*box, facecolor="#fff1d6", edgecolor="#c77700", linewidth=1.5))
    for place, line in enumerate(lines):
        canvas.text(MARGIN + 12, top + 6 + LINE * place, line, weight="bold", color="#7a4600")


def _draw(canvas: Canvas, lines: Sequence[_Line], top: float, ink: str = INK) -> None:
    from matplotlib.patches import Rectangle

    for place, line in enumerate(lines):
        y, x = top + ROW * (place + 0.5), MARGIN + INDENT * line.depth
        if line.parent is not None:
            # From the question down to this answer.
            corner = x - INDENT + 8
            canvas.axes.plot([corner, corner, x - 4], [top + ROW * (line.parent + 0.85), y, y], color="#bbbbbb", lw=1)
            canvas.text(x, y, line.answer, size=SMALL, color=GREY, va="center_baseline")
            x += ANSWER
        is_leaf = line.node.yes is None
        room = WIDTH - MARGIN - NUMBERS - x - 10
        text = line.node.text if is_leaf else f"{line.node.text} ?"
        weight = "bold" if is_leaf else "normal"
        canvas.text(x, y, text, width=room, weight=weight, color=ink, va="center_baseline")
        if is_leaf:
            left, wide = WIDTH - MARGIN - NUMBERS, max(BAR * line.node.share, 2)
            color = COLORS[line.node.kind % len(COLORS)]
            canvas.axes.add_patch(
                Rectangle((left, y - 8), wide, 16, facecolor=color, linewidth=0, alpha=1 if ink == INK else 0.4)
            )
            number = f"{100 * line.node.share:.0f}%" if line.node.share >= 0.01 else "<1%"
            canvas.text(WIDTH - MARGIN, y, number, size=SMALL, color=ink, ha="right", va="center_baseline")

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

SMALLEST = 9.0
"""Pixels of font height in TensorBoard, which shows the 700 pixels of a figure on 350."""


def texts_of(figure: Figure) -> list[Text]:
    figure.canvas.draw()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def _assert_legible(figure: Figure) -> None:
    texts = texts_of(figure)
    boxes = [text.get_window_extent() for text in texts]
    width, height = figure.bbox.size
    for text, box in zip(texts, boxes, strict=True):
        cut = min(box.x0, box.y0, width - box.x1, height - box.y1)
        assert cut >= 0, f"{text.get_text()!r} is cut off by {-cut} pixels"
        assert text.get_fontsize() * figure.dpi / 72 / 2 >= SMALLEST, f"{text.get_text()!r} is too small"
    for (one, a), (other, b) in combinations(zip(texts, boxes, strict=True), 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        # Boxes reach from the font's ascent to its descent: one pixel shared is no ink shared.
        assert across <= 1 or down <= 1, f"{one.get_text()!r} is written over {other.get_text()!r}"


@pytest.fixture
def assert_legible() -> Callable[[Figure], None]:
    """Check that no word is cut off, written over another, or too small where TensorBoard shows the figure."""
    return _assert_legible


@pytest.fixture
def words_of() -> Callable[[Figure], list[str]]:
    return lambda figure: [text.get_text() for text in texts_of(figure)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)

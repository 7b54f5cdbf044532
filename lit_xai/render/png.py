"""A figure as pixels: an array for loggers, a PNG file for everybody else. The same figure gives the same bytes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lit_xai.render.canvas import plain_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_to_rgb(figure: Figure) -> NDArray[np.uint8]:
    """Return the drawn figure as an array ``(H, W, 3)`` of uint8, as TensorBoard's ``add_image`` takes it (``"HWC"``).

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure_to_rgb(Figure((2, 1), dpi=100)).shape
        (100, 200, 3)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # The figure's own canvas may belong to another backend, without pixels in memory.
    canvas = FigureCanvasAgg(figure)
    with plain_style():
        canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def png_bytes(figure: Figure | NDArray[np.uint8]) -> bytes:
    """Return a figure, or the pixels that :func:`figure_to_rgb` made of it, as a PNG picture without date and version.

    Example:
        >>> from matplotlib.figure import Figure
        >>> png_bytes(Figure())[1:4]
        b'PNG'
    """
    from matplotlib.image import imsave

    file = io.BytesIO()
    pixels = figure if isinstance(figure, np.ndarray) else figure_to_rgb(figure)
    # matplotlib would write its version here, and the same figure would give other bytes after an update.
    imsave(file, pixels, format="png", metadata={"Software": "lit_xai"})
    return file.getvalue()


def read_png(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Return a picture that :func:`save_png` wrote as :func:`figure_to_rgb` made it.

    Example:
        >>> import tempfile
        >>> path = save_png(np.full((2, 3, 3), 7, np.uint8), Path(tempfile.mkdtemp()) / "picture.png")
        >>> read_png(path)[0, 0].tolist()
        [7, 7, 7]
    """
    from matplotlib.image import imread

    return np.rint(255 * imread(Path(path))[..., :3]).astype(np.uint8)


def save_png(figure: Figure | NDArray[np.uint8], path: str | os.PathLike[str]) -> Path:
    """Write a figure, or the pixels that :func:`figure_to_rgb` made of it, to ``path`` and return it; folders are made.

    The file is written whole or not at all, and holds no date and no version.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> save_png(Figure(), Path(tempfile.mkdtemp()) / "attribution" / "epoch-0003.png").name
        'epoch-0003.png'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the process in its name: several may write the same figure.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(png_bytes(figure))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path

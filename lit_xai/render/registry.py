"""The renderers that are known, and the choice of one for given attributions.

A renderer of one's own is a subclass of :class:`~lit_xai.render.renderer.Renderer`. Registered once, where the package
that defines it is imported, it is chosen by its ``suits`` and by ``kind="name"`` wherever the library draws
attributions. Without being registered, it can be named by its import path, ``kind="my_package.TokenRenderer"``.

Rankings and translations have figures of their own and no renderer: a renderer draws one map for each sample, where a
ranking has several items for a user, each with parts, and a translation has a map for each token that is written.
"""

import numpy as np
import torch

from lit_xai.network.check import Name, check_choice, refusal
from lit_xai.network.import_path import load_object
from lit_xai.network.spelling import nearest
from lit_xai.render.kinds import BeeswarmRenderer, HeatmapRenderer, ImageRenderer, TabularRenderer
from lit_xai.render.renderer import Renderer
from lit_xai.render.series import SeriesRenderer
from lit_xai.render.shares import ArrayLike
from lit_xai.render.text_kind import TextRenderer

# The first one that suits is chosen, and the heatmap suits everything: the order is part of the meaning.
_LIBRARY: tuple[Renderer, ...] = (
    ImageRenderer(),
    TabularRenderer(),
    BeeswarmRenderer(),
    SeriesRenderer(),
    TextRenderer(),
    HeatmapRenderer(),
)
_registered: dict[str, Renderer] = {}


def register_renderer(renderer: Renderer) -> None:
    """Make a renderer known in this process; it is asked whether it suits before the library's own.

    Registering an instance of the same class again replaces the former one, and is asked first from then on.

    Args:
        renderer: an instance, with a ``name`` that no other renderer has.

    Raises:
        TypeError: it is no :class:`~lit_xai.render.renderer.Renderer`, or has no name.
        ValueError: another renderer has its name.

    Example:
        >>> class Strips(HeatmapRenderer):
        ...     name = "strips"
        >>> register_renderer(Strips())
        >>> find_renderer("strips").name
        'strips'
        >>> unregister_renderer("strips")
    """
    mistake = _mistake(renderer)
    if mistake or not isinstance(renderer, Renderer):
        raise TypeError(
            f"register_renderer expected an instance of a Renderer with a name, but got {mistake or repr(renderer)}."
        )
    known = _known().get(renderer.name)
    # Compared by the name of the class: a module that is imported again, as notebooks do, defines its class anew.
    if known is not None and type(known).__qualname__ != type(renderer).__qualname__:
        raise ValueError(f"register_renderer expected a new name, but there is a renderer {renderer.name!r} already.")
    _registered.pop(renderer.name, None)  # so that it moves to the end, and is asked first
    _registered[renderer.name] = renderer


def unregister_renderer(name: str) -> None:
    """Forget a renderer that was registered; the library's own stay.

    Raises:
        ValueError: none was registered under that name.
    """
    del _registered[check_choice("name", name, _registered)]


def find_renderer(kind: Renderer | Name) -> Renderer:
    """Return a renderer by its name or import path; a renderer itself is returned as it is.

    Raises:
        ValueError: there is none, or it is a class (an import path may lead to one) or has no name.

    Example:
        >>> find_renderer("heatmap").name
        'heatmap'
        >>> find_renderer("imgae")
        Traceback (most recent call last):
        ...
        ValueError: kind expected one of image, tabular, beeswarm, series, text, heatmap, but got 'imgae'. Did you mean
        'image'?
    """
    if mistake := _mistake(kind):
        raise ValueError(f"kind expected the name, the import path or an instance of a Renderer, but got {mistake}.")
    if isinstance(kind, Renderer):
        return kind
    known = _known()
    if isinstance(kind, str) and "." in kind and kind not in known:
        loaded = load_object(kind, "kind")
        renderer = loaded() if isinstance(loaded, type) and issubclass(loaded, Renderer) else loaded
        if not isinstance(renderer, Renderer):
            raise ValueError(f"kind expected the import path of a Renderer, but got {kind!r}, which is {loaded!r}.")
        return find_renderer(renderer)
    if kind not in known:
        hint = "For another renderer pass an instance or its import path, or register it first with register_renderer."
        raise refusal("kind", f"one of {', '.join(known)}", kind, nearest(str(kind), list(known)) or hint)
    return known[kind]


def choose_renderer(inputs: ArrayLike, attributions: ArrayLike, kind: str | Renderer | None = None) -> Renderer:
    """Return the renderer for ``kind``, checked, or the first one that suits the shapes.

    Renderers of one's own come before the library's, the one registered last first.

    Raises:
        TypeError: inputs or attributions are not one tensor or array. Of a network's several inputs, the monitor draws
            each explained one by itself.
        ValueError: there is no such ``kind``, or it does not fit shapes and dtype; or these are not of one batch.

    Example:
        >>> choose_renderer(torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 8, 8)).name
        'image'
        >>> choose_renderer(torch.zeros(2, 30), torch.zeros(2, 30)).name
        'tabular'
        >>> choose_renderer(torch.zeros(2, 3, 99), torch.zeros(2, 3, 99)).name
        'series'
        >>> choose_renderer(torch.tensor([[5, 3, 8]]), torch.zeros(1, 3, 16)).name
        'text'
    """
    for name, values in (("inputs", inputs), ("attributions", attributions)):
        if not isinstance(values, (torch.Tensor, np.ndarray)):
            raise TypeError(
                f"{name} expected one tensor or array, but got {type(values).__name__}: of several inputs, draw each by"
                " itself."
            )
    given, attributed = tuple(inputs.shape), tuple(attributions.shape)
    if len(attributed) < 2 or len(given) < 2 or attributed[0] != given[0] or 0 in attributed + given:
        raise ValueError(
            "attributions expected one map for each sample of inputs, (N, ...) with N at least 1, but got shape"
            f" {attributed} for inputs of shape {given}."
        )
    if kind is None:
        candidates = (*reversed(_registered.values()), *_LIBRARY)
        return next(renderer for renderer in candidates if renderer.suits(inputs, attributions))
    renderer = find_renderer(kind)
    if not renderer.fits(inputs, attributions):
        raise ValueError(
            f"kind={renderer.name!r} expected {renderer.needs}, but got attributions of shape {attributed} for"
            f" {_dtype(inputs)} inputs of shape {given}. Leave kind out to have it chosen by shape and dtype."
        )
    return renderer


def _mistake(renderer: object) -> str:
    """Return what was given in place of a renderer, and the fix, or ``""``."""
    if isinstance(renderer, type) and issubclass(renderer, Renderer):
        return f"the class {renderer.__name__}: pass an instance, {renderer.__name__}()"
    if isinstance(renderer, Renderer) and not isinstance(getattr(renderer, "name", None), str):
        return f"an instance of {type(renderer).__name__}, which has no name: give the class one, name = '...'"
    return ""


def _dtype(values: ArrayLike) -> str:
    return str(values.dtype).removeprefix("torch.")


def _known() -> dict[str, Renderer]:
    return {**{renderer.name: renderer for renderer in _LIBRARY}, **_registered}

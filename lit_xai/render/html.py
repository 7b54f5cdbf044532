"""Texts with colored tokens as a page of HTML, for browsers, which shape every script and select text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from lit_xai.network.token_names import TokenNames
from lit_xai.render.canvas import AGAINST, FOR, color_scale, scale_ticks, to_colors
from lit_xai.render.captions import Caption
from lit_xai.render.pieces import Piece, pieces_of
from lit_xai.render.renderer import Drawing
from lit_xai.render.shares import Array

_STYLE = """
body { font: 16px/1.9 system-ui, sans-serif; max-width: 44em; margin: 2em auto; padding: 0 1em; color: #111; }
h1 { font-size: 1.1em; white-space: pre-line; line-height: 1.4; }
.about { color: #666; font-size: .85em; margin: 1.6em 0 .2em; }
.about b { color: #111; }
.text { margin: 0; overflow-wrap: anywhere; }
.text span { padding: .15em 0; }
.special { color: #666; font-size: .85em; }
.dark { color: #fff; }
.scale { height: 1.1em; margin-top: 2em; }
.ends { display: flex; justify-content: space-between; font-size: .85em; color: #666; }
"""


def sentences_html(tokens: Array, drawing: Drawing) -> str:
    """Return a page of HTML that needs no other file: every text, whole, each token in the color of its share.

    The share of a token stands in its tooltip.

    Args:
        tokens: ids ``(N, T)``.
        drawing: with shares ``(N, 1, T)``.
    """
    names, ids = TokenNames(drawing.token_names), tokens.astype(np.int64)
    parts = [f"<h1>{escape(drawing.title)}</h1>"]
    for i, row in enumerate(ids):
        notes = [escape(note) for note in (drawing.shares.total(i), drawing.shares.note(i))]
        parts += [f'<p class="about">{" · ".join(filter(None, (_about(drawing.captions[i]), *notes)))}</p>']
        pieces = pieces_of(row, drawing.shares.values[i, 0], names, drawing.by_word)
        parts += [f'<p class="text" dir="auto">{_marked(pieces, drawing)}</p>']
    title = escape(" ".join(drawing.title.split()))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    body = "\n".join([*parts, _scale(drawing)])
    return f"<!doctype html>\n<html><head>{head}</head>\n<body>\n{body}\n</body></html>\n"


def _about(caption: Caption) -> str:
    known = [("true ", caption.true, ""), ("pred ", caption.predicted, caption.verdict), ("", caption.place, "")]
    named = [(before, escape(words), escape(after)) for before, words, after in known if words]
    return " · ".join(f'{before}<b dir="auto">{words}</b>{after}' for before, words, after in named)


def _marked(pieces: Sequence[Piece], drawing: Drawing) -> str:
    colors = to_colors(color_scale(drawing.limit), np.array([piece.share for piece in pieces]))
    parts = list[str]()
    for piece, color in zip(pieces, colors, strict=True):
        dark = float(color @ (0.299, 0.587, 0.114)) < 0.45
        kind = " ".join(name for name, has in (("special", piece.is_special), ("dark", dark)) if has)
        spot = "".join(f"{round(255 * part):02x}" for part in color)
        # A direction of its own, so that "[CLS]" does not decide in which the whole text runs (dir="auto").
        own = ' dir="ltr"' if piece.is_special else ""
        parts += [" "] if piece.begins_word and parts else []
        parts += [
            f'<span class="{kind}"{own} style="background:#{spot}" title="{100 * piece.share:+.1f}%">'
            f"{escape(piece.words)}</span>"
        ]
    return "".join(parts)


def _scale(drawing: Drawing) -> str:
    spots = to_colors(color_scale(1.0), np.linspace(-1, 1, 11))
    stops = ", ".join("#" + "".join(f"{round(255 * part):02x}" for part in spot) for spot in spots)
    least, _, most = scale_ticks(drawing.limit)[1]
    below, above = drawing.ends
    left = f'<b style="color:{AGAINST}">{escape(below)}</b> ' if below else ""
    right = f' <b style="color:{FOR}">{escape(above)}</b>'
    per = f"share of the map's Σ|a| per {drawing.unit}"
    words = f"<span>{left}{least}</span><span>{per}</span><span>{most}{right}</span>"
    return (
        f'<div class="scale" style="background:linear-gradient(90deg, {stops})"></div><div class="ends">{words}</div>'
    )

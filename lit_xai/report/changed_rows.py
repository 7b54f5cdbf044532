"""The rows of a table, or texts, whose prediction or explanation changed most, written out: a picture says less."""

from collections.abc import Sequence

import numpy as np
import torch

from lit_xai.network.token_names import TokenNames
from lit_xai.render.groups import group_columns, group_shares
from lit_xai.render.pieces import Piece, pieces_of
from lit_xai.render.shares import shares_of_total
from lit_xai.report import words
from lit_xai.report.drawings import letter
from lit_xai.report.facts import Plain, Table
from lit_xai.report.measured import classes
from lit_xai.report.networks import probabilities
from lit_xai.report.pictures import Gallery, Look, against, first_input, is_text
from lit_xai.report.record import Candidate, Record

FEATURES = 3
"""Features that are named of each sample."""
LEAST = 0.005
"""Further features with a smaller share would be written with 0%."""


def gallery_table(record: Record, gallery: Gallery, look: Look) -> Table:
    """Return a gallery of rows or texts as a table: what each network predicts, and what counts most for it.

    Args:
        record: what was measured.
        gallery: of rows of a table, or of texts.
        look: whether their values may be shown.
    """
    if gallery.maps is None:
        return {"title": gallery.title, "note": gallery.caption, "section": "pictures"}
    networks = (record.reference, record.candidate)
    heads = [
        f"{letter(place)}: {one.name}" for place, one in ((0, networks[0]), (len(record.networks) - 1, networks[1]))
    ]
    has_labels, are_texts = record.labels is not None, is_text(gallery.maps, look)
    columns = [
        "test sample",
        *(["text"] if are_texts else []),
        *(["label"] if has_labels else []),
        *heads,
        *(f"what counts most for {one}" for one in heads),
    ]
    rows: list[list[Plain]] = []
    for row in gallery.rows:
        place = gallery.maps.places[row]
        cells: list[Plain] = [str(place)]
        if are_texts:
            cells.append(" ".join(piece.words for piece in _pieces(gallery, record.reference.name, row, look)))
        if record.labels is not None:
            cells.append(_label(record, place))
        cells += [_answer(record, one, place) for one in networks]
        counts = _counted_words if are_texts else _counts
        cells += [counts(gallery, one.name, row, look) for one in networks]
        rows.append(cells)
    values = " with their values" if look.samples == "show" else ""
    note = (
        f"{gallery.caption} By {gallery.maps.explainer}{against(gallery.maps)}: the {FEATURES}"
        f" {'words' if are_texts else f'features{values}'} that count most, with their signed share of all."
    )
    return {"title": gallery.title, "columns": columns, "rows": rows, "note": note, "section": "pictures"}


def _label(record: Record, place: int) -> str:
    value = np.asarray(record.labels)[place].reshape(-1)
    return ", ".join(map(words.number, value.tolist())) if record.task == "values" else _class(record, int(value[0]))


def _class(record: Record, value: int) -> str:
    return record.class_names[value] if value < len(record.class_names) else str(value)


def _answer(record: Record, network: Candidate, place: int) -> str:
    if record.task == "values":
        return ", ".join(map(words.number, network.outputs[place].astype(float).tolist()))
    predicted = int(classes(record, network.outputs[[place]])[0])
    chance = float(np.exp(probabilities(record, network)[place, predicted]))
    return f"{_class(record, predicted)} ({100 * chance:.0f}%)"


def _counts(gallery: Gallery, network: str, row: int, look: Look) -> str:
    """Return the features that count most, each with its value and its signed share of the sample's total."""
    assert gallery.maps is not None  # checked by the caller
    name, values = first_input(gallery.maps)
    own = gallery.maps.by_network[network][name][[row]].double().cpu().numpy()
    groups = look.feature_groups if look.feature_groups and len(look.feature_groups) == own.shape[1] else None
    shares = shares_of_total(own) if groups is None else group_shares(shares_of_total(own), groups)
    columns = [[place] for place in range(own.shape[1])] if groups is None else group_columns(groups, own.shape[1])
    parts: list[tuple[str, float]] = []
    for feature in np.argsort(-np.abs(shares.values[0]), kind="stable")[:FEATURES]:
        share = float(shares.values[0, feature])
        parts.append((_named(columns[feature], values[row].tolist(), look), share))
    return _written(parts)


def _counted_words(gallery: Gallery, network: str, row: int, look: Look) -> str:
    """Return the words of a text that count most, each with its signed share of the text's total."""
    pieces = sorted(_pieces(gallery, network, row, look), key=lambda piece: -abs(piece.share))
    return _written([(piece.words, piece.share) for piece in pieces[:FEATURES]])


def _pieces(gallery: Gallery, network: str, row: int, look: Look) -> list[Piece]:
    """Return the words of a text, without special tokens and padding."""
    assert gallery.maps is not None  # checked by the caller
    name, values = first_input(gallery.maps)
    shares = shares_of_total(gallery.maps.by_network[network][name][[row]].double().cpu().numpy())
    found = pieces_of(values[row].cpu().numpy(), shares.values[0], TokenNames(look.token_names), by_word=True)
    return [piece for piece in found if not piece.is_special]


def _written(parts: Sequence[tuple[str, float]]) -> str:
    """Return what counts with its share, the largest first, without what would be written with 0%.

    Example:
        >>> _written([("dull", 0.6), ("film", 0.004)])
        'dull (+60%)'
    """
    kept = [(name, share) for place, (name, share) in enumerate(parts) if abs(share) >= LEAST or (share and not place)]
    signed = [f"{name} ({'+' if share > 0 else words.MINUS}{100 * abs(share):.0f}%)" for name, share in kept]
    return ", ".join(signed) or "nothing"


def _named(columns: Sequence[int], values: Sequence[float], look: Look) -> str:
    """Return a feature with its value, if it may be shown: of the columns of a category the one that the row is in."""
    names = look.feature_names if look.feature_names and len(look.feature_names) == len(values) else None
    labels = [f"x{place}" if names is None else names[place] for place in columns]
    shown = [_value(values[place], place, look) for place in columns] if look.samples == "show" else []
    if len(columns) == 1:
        return f"{labels[0]} = {words.number(shown[0])}" if shown else labels[0]
    assert look.feature_groups is not None  # without groups each feature is one column
    name = str(look.feature_groups[columns[0]])
    # Anything but one 1 among zeros is no category, or one that the row has none of.
    if not np.isin(np.round(shown, 3), (0, 1)).all() or np.round(shown, 3).sum() != 1:
        return name
    value = labels[int(np.argmax(shown))]
    return value if value.startswith(name) else f"{name} = {value}"


def _value(value: float, feature: int, look: Look) -> float:
    """Return a value as it was before normalization, where that is known."""
    mean, std = (_number(one, feature) for one in (look.mean, look.std))
    if mean is None or std is None:
        return value
    # A zero that normalization in 32 bits has moved and this moves back is something like 1e-8.
    return 0.0 if abs(value * std + mean) < 1e-6 * abs(mean) else value * std + mean


def _number(given: Sequence[float] | None, feature: int) -> float | None:
    if given is None:
        return None
    numbers = torch.as_tensor(given, dtype=torch.float64).reshape(-1)
    return float(numbers[feature if len(numbers) > 1 else 0]) if feature < len(numbers) or len(numbers) == 1 else None

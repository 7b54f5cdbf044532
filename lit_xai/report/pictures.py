"""Pictures of a report: the same samples by each network, and the samples that changed most."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_xai.attribution.explanation import by_name
from lit_xai.report import words
from lit_xai.report.drawings import letter
from lit_xai.report.estimates import FEWEST
from lit_xai.report.explainers import explainer_row
from lit_xai.report.explaining import Maps
from lit_xai.report.facts import Picture, Section
from lit_xai.report.measured import classes
from lit_xai.report.networks import network_row, probabilities
from lit_xai.report.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW, MOST = 4, 8
"""Samples in the one picture, and in a gallery."""

LARGEST = 700_000
"""Bytes of a picture, above which fewer samples are drawn."""

_SHORT = {
    "mean absolute error": "mean abs. error",
    "mean absolute change": "mean abs. change",
    "unchanged predictions": "unchanged",
}


@dataclass(frozen=True)
class Look:
    """How samples are drawn.

    Args:
        samples: ``"show"``, ``"maps_only"`` or ``"none"``.
        feature_names: of a table.
        mean: the mean that normalization subtracted, one number per channel or feature.
        std: the standard deviation that it divided by.
        feature_groups: the feature that each column of a table belongs to.
        token_names: of the ids of texts.
    """

    samples: str = "show"
    feature_names: Sequence[str] | None = None
    mean: Any = None
    std: Any = None
    feature_groups: Sequence[str] | None = None
    token_names: Sequence[str] | None = None


def one_picture(record: Record, maps: Maps | None, look: Look) -> Picture:
    """Return the same few samples by each network, with what each achieves and costs; a sentence if that cannot be.

    Args:
        record: what was measured, without the picture.
        maps: of the samples that were explained.
        look: how samples are drawn.
    """
    title = "The same samples by each network"
    if maps is None:
        return _sentence(title, "No explanations were compared, so there is none to be drawn.", "networks")
    of_all = is_table(maps)
    if look.samples == "none" and not (of_all and len(maps.places) >= FEWEST):
        return _sentence(title, "No samples are shown, nor their explanations (samples='none').", "networks")
    rows = list(range(len(maps.places))) if of_all else _of_each_class(record, maps.places)
    names = _names(record)
    numbers = _numbers(record, names)
    which = "the first explained samples" + (" of different classes" if record.task != "values" else "")
    caption = (
        f"{maps.explainer}{against(maps)}: {f'the mean over {len(rows)} samples' if of_all else which}, on one scale."
        f" {_explained_output(record)} Below: the numbers of all {record.n:,} test samples."
    )
    found = _drawn(record, maps, rows, names, look, title, caption, numbers, len(rows))
    return {**found, "section": "networks"}


@dataclass(frozen=True)
class Gallery:
    """Some of the samples that changed.

    Args:
        title: what of them changed.
        caption: how they were chosen, and of how many.
        maps: of them, by reference and candidate; ``None`` where there are none.
        rows: of the samples in ``maps``.
    """

    title: str
    caption: str
    maps: Maps | None = None
    rows: Sequence[int] = ()


def galleries(record: Record, maps: Maps, held: int, also: Callable[[list[int]], Maps]) -> list[Gallery]:
    """Return the samples whose prediction changed most, and apart from them those whose explanation did.

    Args:
        record: what was measured.
        maps: of the samples that were explained.
        held: how many samples, the first ones, can be explained.
        also: returns the maps of further samples, by their places, of reference and candidate.
    """
    places, caption = _changed(record, held)
    title = "Predictions that changed most" if record.task == "values" else "Predictions that flipped"
    nothing = f"No prediction changed, of {record.n:,} test samples."
    found = [Gallery(title, caption, also(places), range(len(places))) if places else Gallery(title, nothing)]
    rows = _most_dissimilar(record, maps)
    if rows:
        similarity = maps.similarity[record.candidate.name]
        first, last = (f"{float(similarity[row]):.2f}".replace("-", words.MINUS) for row in (rows[0], rows[-1]))
        among = "" if record.task == "values" else ", among those with the same prediction"
        caption = (
            f"{len(rows)} of {len(maps.places)} explained samples: those whose explanations resemble the reference's"
            f" least (similarity {first} to {last}){among}."
        )
        found.append(Gallery("Explanations that changed most", caption, maps, rows))
    return found


def gallery_picture(record: Record, gallery: Gallery, look: Look) -> Picture:
    """Return a gallery as a picture: input, reference, candidate, and what each predicts.

    Args:
        record: what was measured.
        gallery: of the samples.
        look: how samples are drawn.
    """
    if gallery.maps is None:
        return _sentence(gallery.title, gallery.caption)
    names = [record.reference.name, record.candidate.name]
    caption = f"{gallery.caption} By {gallery.maps.explainer}{against(gallery.maps)}. {_explained_output(record)}"
    return _drawn(record, gallery.maps, gallery.rows, names, look, gallery.title, caption, {}, MOST)


def is_table(maps: Maps) -> bool:
    """Return whether the samples are rows of a table: for each of them bars would be needed, so they are written."""
    values = first_input(maps)[1]
    return values.dim() == 2 and values.is_floating_point()


def is_text(maps: Maps, look: Look) -> bool:
    """Return whether the samples are texts that may be read: a strip of colors without their words says nothing."""
    name, values = first_input(maps)
    are_tokens = values.dim() == 2 and not values.is_floating_point()
    attributed = next(iter(maps.by_network.values()))[name]
    return are_tokens and attributed.shape == values.shape and look.samples == "show" and look.token_names is not None


# --- which samples ----------------------------------------------------------------------------------------------------


def _of_each_class(record: Record, places: Sequence[int]) -> list[int]:
    """Return rows of the first samples of different predicted classes, and then of any."""
    if record.task == "values":
        return list(range(min(FEW, len(places))))
    predicted = classes(record, record.reference.outputs[list(places)]).tolist()
    first = list({one: row for row, one in reversed(list(enumerate(predicted)))}.values())
    rest = [row for row in range(len(places)) if row not in first]
    return sorted((sorted(first) + rest)[:FEW])


def _changed(record: Record, held: int) -> tuple[list[int], str]:
    """Return the places of the samples whose outputs changed most, of those whose class did, and the words for it."""
    was, now = record.reference.outputs[:held], record.candidate.outputs[:held]
    among = f"{record.n:,} test samples" if held >= record.n else f"the first {held:,} test samples"
    if record.task == "values":
        moved = np.abs(now.astype(np.float64) - was).mean(1)
        places = [place for place in np.argsort(-moved, kind="stable")[:MOST].tolist() if moved[place] > 0]
        return places, f"The {len(places)} of {among} whose outputs moved most."
    before = classes(record, was)
    flipped = np.flatnonzero(before != classes(record, now))
    first, last = (np.exp(probabilities(record, one)[:held]) for one in (record.reference, record.candidate))
    drop = (first - last)[flipped, before[flipped]]
    chosen: list[int] = flipped[np.argsort(-drop, kind="stable")][:MOST].tolist()
    if len(chosen) == len(flipped):
        return chosen, f"All {len(chosen)} predictions that changed, of {among}."
    return chosen, f"{len(chosen)} of {len(flipped):,} predictions that changed, those that moved most, of {among}."


def _most_dissimilar(record: Record, maps: Maps) -> list[int]:
    order = torch.argsort(maps.similarity[record.candidate.name], stable=True).tolist()
    if record.task == "values":
        return order[:MOST]
    places = list(maps.places)
    before, now = (classes(record, one.outputs[places]) for one in (record.reference, record.candidate))
    return [row for row in order if before[row] == now[row]][:MOST]


# --- drawing ----------------------------------------------------------------------------------------------------------


def _drawn(
    record: Record,
    maps: Maps,
    rows: Sequence[int],
    names: Sequence[str],
    look: Look,
    title: str,
    caption: str,
    numbers: dict[str, list[str]],
    most: int,
) -> Picture:
    rows = list(rows)[:most]
    try:
        png = _png(_figure(record, maps, rows, names, look, numbers))
        while len(png) > LARGEST and len(rows) > 1:
            rows = rows[: len(rows) // 2]
            png = _png(_figure(record, maps, rows, names, look, numbers))
    except (TypeError, ValueError) as error:
        return _sentence(title, f"Nothing can be drawn of these samples: {error}")
    alt = f"{title}: {len(rows)} test samples, and their maps by {', '.join(names)}."
    if numbers:
        alt += " " + " ".join(f"{what}: {', '.join(values)}." for what, values in numbers.items())
    return {
        "title": title,
        "caption": caption,
        "alt": alt,
        "png": base64.b64encode(png).decode(),
        "section": "pictures",
    }


def _figure(
    record: Record, maps: Maps, rows: list[int], names: Sequence[str], look: Look, numbers: dict[str, list[str]]
) -> "Figure":
    from lit_xai.render.captions import ends_of
    from lit_xai.render.networks import networks_figure

    name, values = first_input(maps)
    places = [maps.places[row] for row in rows]
    by_network = {one: maps.by_network[one][name][rows].cpu() for one in names}
    by_network = {
        one: value.reshape(len(value), -1) if value.dim() == 1 else value for one, value in by_network.items()
    }
    heads = {one: f"{letter(_place(record, one))}: {one}" for one in names}
    has_classes = record.task != "values"
    labels = None if record.labels is None else record.labels[places]
    own = by_network[names[0]].shape == _rows(values, rows).shape  # a layer's channels are no features of the table
    answers = {one: _answers(record, one, places) for one in names}
    return networks_figure(
        _rows(values, rows),
        {heads[one]: value for one, value in by_network.items()},
        labels=labels if labels is None or labels.ndim == 1 or labels.shape[1] == 1 else None,
        predictions={heads[one]: answer[0] for one, answer in answers.items()},
        probabilities={heads[one]: answer[1] for one, answer in answers.items()},
        numbers=numbers,
        class_names=record.class_names or None,
        feature_names=look.feature_names if own else None,
        feature_groups=look.feature_groups if own else None,
        mean=look.mean if values.dim() == 4 else None,
        std=look.std if values.dim() == 4 else None,
        ends=ends_of(list(by_network.values()), has_classes),
        shows_inputs=look.samples == "show",
    )


def _answers(record: Record, name: str, places: list[int]) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Return the predictions of a network, and their probabilities; neither of values of several outputs."""
    network = record.networks[_place(record, name)]
    if record.task == "values":
        return (network.outputs[places].astype(np.float64), None) if network.outputs.shape[1] == 1 else (None, None)
    chances = np.exp(probabilities(record, network)[places])
    predicted = classes(record, network.outputs[places])
    return predicted, chances[np.arange(len(places)), predicted]


def _rows(values: Tensor, rows: list[int]) -> Tensor:
    """Return some samples' values, of a single number each as one column."""
    found = values[rows].cpu()
    return found.reshape(-1, 1) if found.dim() == 1 else found


def first_input(maps: Maps) -> tuple[str, Tensor]:
    """Return the name of the first explained input, and its values; those of a layer belong to the first input."""
    inputs = by_name(maps.inputs)
    name = next(iter(next(iter(maps.by_network.values()))))
    return name, inputs.get(name, next(iter(inputs.values())))


def _names(record: Record) -> list[str]:
    from lit_xai.render.networks import MOST_NETWORKS

    names = [one.name for one in record.networks]
    return names if len(names) <= MOST_NETWORKS else [names[0], *names[1 - MOST_NETWORKS :]]


def _place(record: Record, name: str) -> int:
    return next(place for place, one in enumerate(record.networks) if one.name == name)


def _numbers(record: Record, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines under each network: metric, milliseconds, kilobytes and retention, where known."""
    rows = [network_row(record, record.networks[_place(record, name)]) for name in names]
    metric = rows[0]["metric"]["name"]
    found = {_SHORT.get(metric, metric): [words.number(row["metric"]["value"]) for row in rows]}
    if any(row["latency"] for row in rows):
        found["latency (ms)"] = [words.number((row["latency"] or {}).get("median")) for row in rows]
    if any("size kB" in row["costs"] for row in rows):
        found["size (kB)"] = [words.number(row["costs"].get("size kB")) for row in rows]
    explained = explainer_row(record, record.explained[0])
    key = "retention" if explained["speaks"] else "similarity"
    values = {one["name"]: (one[key] or {}).get("value") for one in explained["networks"]}
    found[key] = ["reference" if name == record.reference.name else words.number(values.get(name), 2) for name in names]
    return found


def against(maps: Maps) -> str:
    """Return what explanations are of, where there are several inputs, and compare a sample with, in words."""
    several = len(next(iter(maps.by_network.values()))) > 1
    drawn = f" of the input '{first_input(maps)[0]}'" if several else ""
    return drawn + (f" against a baseline of {maps.baseline}" if maps.baseline else "")


def _explained_output(record: Record) -> str:
    if record.task == "values":
        several = " first" if record.reference.outputs.shape[1] > 1 else ""
        return f"Red raises the{several} output, blue lowers it."
    return "Red speaks for the class that the reference predicts, blue against it."


def _sentence(title: str, text: str, section: Section = "pictures") -> Picture:
    return {"title": title, "caption": text, "section": section}


def _png(figure: "Figure") -> bytes:
    from lit_xai.render.png import png_bytes

    return png_bytes(figure)

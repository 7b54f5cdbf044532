"""What a report shows beside its numbers, as far as inputs, explanations and options allow it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from lit_xai.report.changed_rows import gallery_table
from lit_xai.report.explaining import Explaining, Maps
from lit_xai.report.facts import Picture, Table
from lit_xai.report.layers import layers_table
from lit_xai.report.pictures import Look, galleries, gallery_picture, is_table, is_text, one_picture
from lit_xai.report.record import Record
from lit_xai.retention.explainer import Explainer


def with_shown(
    record: Record,
    networks: Mapping[str, nn.Module],
    explaining: Explaining,
    drawn: tuple[Explainer, Maps] | None,
    look: Look,
    measures: Sequence[Callable[[Record], Table | None]] = (),
) -> dict[str, Any]:
    """Return the facts of a record, with the pictures and tables of its samples and networks.

    Args:
        record: what was measured.
        networks: by name.
        explaining: explains further samples.
        drawn: the first explainer, and the maps of the samples that were explained.
        look: how samples are drawn.
        measures: return further tables of a record, or ``None`` where they say nothing.
    """
    pictures: list[Picture] = [one_picture(record, drawn[1] if drawn else None, look)]
    tables: list[Table] = []
    if drawn is not None and look.samples != "none":
        explainer, maps = drawn
        candidate = [record.candidate.name]
        for one in galleries(
            record, maps, explaining.held, lambda places: explaining.maps(explainer, places, candidate)
        ):
            if is_table(maps) or is_text(maps, look):
                tables.append(gallery_table(record, one, look))
            else:
                pictures.append(gallery_picture(record, one, look))
    tables += [found for measure in measures if (found := measure(record)) is not None]
    if (layers := layers_table(networks)) is not None:
        tables.append(layers)
    facts = record.facts
    limits = list(facts.get("limits", []))
    are_rows = drawn is not None and is_table(drawn[1]) and record.task != "values"
    if are_rows and all(one.get("section") != "reasons" for one in tables):
        limits.append("Reason codes were not compared, as no adverse class was named.")
    return {
        **facts,
        "limits": limits,
        "tables": [*facts.get("tables", []), *tables],
        "pictures": [*facts.get("pictures", []), *pictures],
    }

"""The plain values that a report shows beside what was measured: who, what, where, from which data."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Literal, cast

from typing_extensions import TypedDict

from lit_xai.report.record import FACTS, Record
from lit_xai.structure.schema import check_schema, closed

Plain = str | int | float | bool | None | list[str]
"""What one line of a table holds; a list is shown with commas."""

Section = Literal["networks", "robustness", "reasons", "layers", "pictures", "tables"]
"""Where on the page a table or a picture stands."""

_PNG = b"\x89PNG\r\n\x1a\n"


@closed
class Split(TypedDict, total=False):
    """One split of the data.

    ``name``, ``n``: its samples. ``hash``: of its samples in any order. ``served``: the decisions that were taken on
    it. ``classes``, ``groups``: samples of each, by name.
    """

    name: str
    n: int
    hash: str
    served: str
    classes: dict[str, int]
    groups: dict[str, int]


@closed
class Overlap(TypedDict):
    """How many samples two splits have in common."""

    first: str
    second: str
    n: int


@closed
class Data(TypedDict, total=False):
    """The data. ``splits``, ``overlaps``: see there. ``notes``: sentences."""

    splits: list[Split]
    overlaps: list[Overlap]
    notes: list[str]


@closed
class Change(TypedDict, total=False):
    """What was modified: ``what``, by which ``protocol``, with which ``impact``."""

    what: str
    protocol: str
    impact: str


@closed
class Faithful(TypedDict, total=False):
    """How faithful an explainer is to a network, as measured elsewhere; what a comparison measures is in its record.

    ``network``, ``explainer``: names. ``measure``: such as ``"insertion minus deletion"``. ``value``, ``low``,
    ``high``: the number and its bounds. ``n``: samples.
    """

    network: str
    explainer: str
    measure: str
    value: float | None
    low: float | None
    high: float | None
    n: int


@closed
class Table(TypedDict, total=False):
    """Any further table (channels and bits by layer, corruption, reason codes).

    ``title``, ``columns``, ``rows`` as they are to be written, and ``note``, a sentence. ``section``: default
    ``"tables"``.
    """

    title: str
    columns: list[str]
    rows: list[list[Plain]]
    note: str
    section: Section


@closed
class Picture(TypedDict, total=False):
    """Any picture. ``title``, ``caption``: words. ``alt``: what it shows, for who cannot see it.

    ``png``: in base64; without it the caption says why there is none. ``section``: default ``"pictures"``.
    """

    title: str
    caption: str
    alt: str
    png: str
    section: Section


@closed
class Facts(TypedDict, total=False):
    """The keys of ``facts`` of a :class:`~lit_xai.report.record.Record` that a report shows. Each may be missing.

    - ``title``: of the report. ``subject``: one sentence on what the model is for.
    - ``requirements``: a text by name, such as ``{"accuracy": "drop<=0.01"}``.
    - ``stated``: ``"before"`` or ``"afterwards"``, of the requirements. ``reading``: how many times the test samples
      were read, this one included. ``limits``: further sentences.
    - ``identity``, ``environment``: lines of a table by name (``"reference sha256"``, ``"git commit"``).
    - ``data``, ``changes``, ``faithfulness``, ``tables``, ``pictures``: see the types.
    - ``card``: entries of the model card's header, such as ``license``, ``language``, ``base_model``, ``datasets``.

    Of the ``arguments`` of an :class:`~lit_xai.report.record.Explained` these are more than a line of a table:
    ``steps``, ``completeness_error``, ``references`` (mean similarity of what is no candidate, by name: ``"8 bits"``),
    ``sanity``, ``{"passed": bool, "text": str}``, and ``faithfulness``: ``steps``, ``orders`` and what is ``removed``,
    or why it ``failed``.
    """

    title: str
    subject: str
    requirements: dict[str, str]
    stated: Literal["before", "afterwards"]
    reading: int
    limits: list[str]
    identity: dict[str, Plain]
    environment: dict[str, Plain]
    data: Data
    changes: list[Change]
    faithfulness: list[Faithful]
    tables: list[Table]
    pictures: list[Picture]
    card: dict[str, Any]


def in_section(given: Sequence[Any], section: str, default: str) -> list[Any]:
    """Return the tables, or the pictures, of one section.

    Example:
        >>> in_section([{"title": "a"}, {"title": "b", "section": "layers"}], "layers", "tables")
        [{'title': 'b', 'section': 'layers'}]
    """
    return [one for one in given if one.get("section", default) == section]


def facts_of(record: Record) -> Facts:
    """Return the facts of a record, checked.

    Raises:
        ValueError: one of them is of another kind; one sentence.

    Example:
        >>> import numpy as np
        >>> from lit_xai.report.record import Candidate
        >>> networks = Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))
        >>> facts_of(Record(networks, "classes", facts={"title": "Digits"}))
        {'title': 'Digits'}
    """
    check_schema(record.facts, Facts, f"facts in {FACTS}")
    facts = cast(Facts, record.facts)
    for place, picture in enumerate(facts.get("pictures", [])):
        if "png" in picture and not _is_png(picture["png"]):
            raise ValueError(f"{FACTS}: facts.pictures.{place}.png expected a PNG picture in base64.")
    return facts


def _is_png(text: str) -> bool:
    """Return whether a text is a picture and nothing else: it becomes part of a page."""
    try:
        return base64.b64decode(text, validate=True).startswith(_PNG)
    except (binascii.Error, ValueError):
        return False

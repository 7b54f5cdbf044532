"""The report of a study as one HTML page that needs nothing else, in the style of the report of a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_xai.report import words
from lit_xai.report.templates import template
from lit_xai.study.drawings import axis_title, fronts
from lit_xai.study.space import short_names

WORDS = {"min": "less is better", "max": "more is better"}


def page(found: Mapping[str, Any]) -> str:
    """Return the page of a study, the same for the same results.

    Args:
        found: :func:`~lit_xai.study.results.results`.
    """
    done = [one for one in found["cells"] if one["state"] == "complete"]
    shown = {
        "found": found,
        "words": words,
        "front": [one for one in done if one["is_on_front"]],
        "done": len(done),
        "others": [one for one in found["cells"] if one["state"] != "complete"],
        "figures": fronts(found),
        "title": axis_title,
        "better": WORDS,
        "tested": (found["test"] or {}).get("cells", {}),
        "objectives": list(found["objectives"]),
        "short": short_names(found["search"]),
        "further": _further(found),
    }
    return template("study.html", Path(__file__).parent).render(shown).rstrip() + "\n"


def _further(found: Mapping[str, Any]) -> list[str]:
    """Return what was measured of the cells beside their objectives."""
    names = dict.fromkeys(name for one in found["cells"] for name in one["further"])
    return [name for name in names if name in ("accuracy", "flips", "retention", "latency", "size", "macs", "params")]

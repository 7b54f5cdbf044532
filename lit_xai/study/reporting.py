"""The files of a study's report, all of them the same for the same results."""

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_xai.study.page import page

PAGE, TABLE, NUMBERS = "study.html", "study.csv", "study.json"
"""The files of a report."""


def write_report(found: Mapping[str, Any], folder: Path) -> Path:
    """Write the report of a study, each file whole or not at all, and return the page's path.

    Args:
        found: :func:`~lit_xai.study.results.results`.
        folder: of the study.
    """
    texts = {PAGE: page(found), TABLE: table(found), NUMBERS: json.dumps(found, indent=2, ensure_ascii=False) + "\n"}
    for name, text in texts.items():
        part = folder / f".{name}.part"
        part.write_text(text, encoding="utf-8", newline="")
        os.replace(part, folder / name)
    return folder / PAGE


def table(found: Mapping[str, Any]) -> str:
    """Return a row for each cell, as CSV.

    Args:
        found: :func:`~lit_xai.study.results.results`.
    """
    file = io.StringIO()
    objectives, options = list(found["objectives"]), list(found["search"])
    writer = csv.writer(file, lineterminator="\n")
    ends = [f"{name}{end}" for name in objectives for end in ("", " low", " high")]
    further = list(dict.fromkeys(name for one in found["cells"] for name in one["further"]))
    writer.writerow(
        ["cell", "state", "front", *map(_safe, options), *map(_safe, ends), *map(_safe, further), "seconds", "folder"]
    )
    for one in found["cells"]:
        values = [one["values"].get(name, {}).get(end) for name in objectives for end in ("value", "low", "high")]
        more = [one["further"].get(name, {}).get("value") for name in further]
        row = [one["options"].get(name) for name in options]
        state = [one["number"], one["state"], int(one["is_on_front"])]
        writer.writerow([*state, *map(_safe, row), *values, *more, one["seconds"], one["folder"]])
    return file.getvalue()


def _safe(text: Any) -> Any:
    """Return a text that no spreadsheet takes for a formula."""
    return (
        f"'{text}" if isinstance(text, str) and text.startswith(("=", "+", "-", "@")) and not _is_number(text) else text
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

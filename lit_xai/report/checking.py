"""The verdict on a folder, as text, JSON or JUnit, and whether the folder is as it was written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from lit_xai.report.measured import evidence_of
from lit_xai.report.record import ARRAYS, FACTS, Record
from lit_xai.report.several import FILES as SEVERAL
from lit_xai.report.several import write_comparison
from lit_xai.report.signing import check_key, sign, signers_of
from lit_xai.report.statement import STATED, refuse_unfinished
from lit_xai.report.verdict import Verdict, judge, to_dict
from lit_xai.report.writing import MANIFEST, SIGNATURE, check_new, root_digest, verify, write
from lit_xai.retention.requirements import read_requirements

TAMPERED = 12
"""The exit code for a folder that was changed since it was written."""

Format = Literal["text", "json", "junit"]


def verdict_of(record: Record) -> Verdict | None:
    """Return the verdict on a record; ``None`` where nothing was required."""
    required = record.facts.get("requirements")
    if not required:
        return None
    requirements = read_requirements(required, "requirements")
    return judge(requirements, evidence_of(record, requirements))


def check_folder(
    folder: str | Path,
    form: Format = "text",
    verify_all: bool = False,
    digest: str | None = None,
    signers: str | Path | None = None,
) -> tuple[str, int]:
    """Return the verdict on a folder as a text, and the exit code.

    Args:
        folder: of a report, or of a run with one report below it.
        form: of the text.
        verify_all: rebuild the report and compare it, and all hashes.
        digest: the root digest as it was kept elsewhere.
        signers: a file of those one of whom has to have signed it; the report is verified as well then.

    Raises:
        OSError: it holds no report.
        ValueError: it is damaged, the digest is none, or signatures cannot be checked; one sentence.
    """
    place = find_report(folder)
    changed = verify(place) if verify_all or signers is not None else []
    if digest is not None and root_digest(place) != digest.strip().lower():
        changed.append(f"its root digest is {root_digest(place)}, not {digest}")
    signed = [] if signers is None or changed else signers_of(place, signers)
    if signers is not None and not changed and not signed:
        changed.append(_why_unsigned(place, signers))
    if changed:
        return _as(form, "changed since it was written", None, changed), TAMPERED
    found = verdict_of(Record.load(place))
    text = _as(form, "nothing was required" if found is None else found.outcome, found, [], signed)
    return text, 0 if found is None else found.exit_code


def find_report(run: str | Path) -> Path:
    """Return the folder of a report: a run's own, or the only one below it.

    Args:
        run: a folder.

    Raises:
        ValueError: there is no report, or there are several; one sentence.
    """
    place = Path(run)
    if (place / FACTS).is_file():
        return place
    refuse_unfinished(place)
    found = sorted(one.parent for one in place.rglob(FACTS) if one.with_name(ARRAYS).is_file())
    if not found:
        for stated in place.rglob(STATED):
            refuse_unfinished(stated.parent)
        raise ValueError(
            f"'{place}' holds no report: expected the folder of a run with ModelReport, or of `lit-xai compare`, with"
            f" {FACTS} in it."
        )
    if len(found) > 1:
        shown = ", ".join(map(str, found[:3])) + (" ..." if len(found) > 3 else "")
        raise ValueError(f"'{place}' holds {len(found)} reports: name one of {shown}.")
    return found[0]


def rebuild(run: str | Path, key: str | Path | None = None) -> tuple[str, int]:
    """Write the report of a run anew from its samples; return where it is, and 0.

    Args:
        run: a folder.
        key: to sign it with.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no report, or a damaged one, or cannot be written or signed; one sentence.
    """
    place = find_report(run)
    if key is not None:
        check_key(key)
    write(Record.load(place), place)
    signed = [] if key is None else [f"It is signed in {sign(place, key)}"]
    return "\n".join([f"The report is {place / 'report.html'}", *signed]), 0


def compare_reports(runs: Sequence[str | Path], folder: str | Path, overwrite: bool = False) -> tuple[str, int]:
    """Write a comparison of the reports of several runs; return what is on the front and where the page is, and 0.

    Args:
        runs: folders.
        folder: for the comparison.
        overwrite: replace an earlier one.

    Raises:
        OSError: one cannot be read.
        ValueError: the folder holds a comparison, a run holds no report, or the reports do not fit each other; one
            sentence.
    """
    place = Path(folder)
    check_new(place, overwrite, SEVERAL)
    places = [find_report(run) for run in runs]
    if twice := [str(one) for one in places if places.count(one) > 1]:
        raise ValueError(f"RUN expected different reports, but got {twice[0]} twice.")
    names = short_names(places)
    numbers = write_comparison({name: Record.load(one) for name, one in zip(names, places, strict=True)}, place)
    front = ", ".join(row["name"] for row in numbers["rows"] if row["on_front"])
    return f"On the Pareto front: {front}.\nThe comparison is {place / 'comparison.html'}", 0


def short_names(places: Sequence[Path]) -> list[str]:
    """Return the parts of paths in which they differ.

    Example:
        >>> short_names([Path("logs/a/report"), Path("logs/b/report")])
        ['a', 'b']
    """
    parts = [list(one.resolve().parts) for one in places]
    for end in (0, -1):
        while all(len(one) > 1 for one in parts) and len({one[end] for one in parts}) == 1:
            for one in parts:
                del one[end]
    return ["/".join(one) for one in parts]


def _why_unsigned(place: Path, signers: str | Path) -> str:
    if not (place / SIGNATURE).is_file():
        return f"{place / SIGNATURE} is missing: nobody signed the report"
    return f"{place / SIGNATURE} is no signature of {MANIFEST} by anybody whom {signers} allows"


def _as(form: Format, outcome: str, verdict: Verdict | None, changed: Sequence[str], signed: Sequence[str] = ()) -> str:
    if form == "text":
        lines = [f"  {one}." for one in changed] + [f"Signed by {one}." for one in signed]
        return "\n".join([f"Verdict: {outcome}." if verdict is None else str(verdict), *lines])
    plain = {"outcome": outcome, "lines": [], **({} if verdict is None else to_dict(verdict)), "changed": changed}
    plain["signed_by"] = list(signed)
    if form == "json":
        return json.dumps(plain, indent=2)
    return _junit(verdict, changed)


def _junit(verdict: Verdict | None, changed: Sequence[str]) -> str:
    """Return a test suite in the form that continuous integration reads: a test case for each line."""
    lines = [] if verdict is None else list(verdict.lines)
    failures = sum(line.outcome == "failed" for line in lines) + len(changed)
    skipped = sum(line.outcome == "inconclusive" for line in lines)
    counts = {"tests": len(lines) + len(changed), "failures": failures, "skipped": skipped}
    suite = ElementTree.Element("testsuite", {"name": "lit-xai", **{key: str(n) for key, n in counts.items()}})
    for line in lines:
        case = ElementTree.SubElement(suite, "testcase", name=str(line.requirement), classname="lit-xai")
        kind = {"failed": "failure", "inconclusive": "skipped"}.get(line.outcome)
        if kind is not None:
            ElementTree.SubElement(case, kind, message=str(line))
    for sentence in changed:
        case = ElementTree.SubElement(suite, "testcase", name="unchanged", classname="lit-xai")
        ElementTree.SubElement(case, "failure", message=sentence)
    return ElementTree.tostring(suite, encoding="unicode")

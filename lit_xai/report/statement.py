"""What a run has to reach, written down before its first step: a report can then say that it was stated before."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypedDict

from lit_xai.report.record import FACTS, read_json
from lit_xai.retention.record import write_json
from lit_xai.structure.schema import NonNegative, check_schema, closed

STATED = "stated.json"
"""The file of a statement, in the folder of the report."""


@dataclass(frozen=True)
class Statement:
    """What a run was required to reach, and when that was written down.

    Args:
        requirements: a text by name.
        time: when it was written down, in UTC.
        step: optimizer steps that had been taken by then; 0 is before the run.
        command: the command line.
        versions: of packages.
        callbacks: of the run, with what each was told.
        readings: how many times the test samples were read by reports of this run.
        failure: why there is no report of a run that ended; empty for one that has one, or has not ended.
    """

    requirements: dict[str, str]
    time: str
    step: int
    command: str
    versions: dict[str, str]
    callbacks: list[str]
    readings: int = 0
    failure: str = ""

    @classmethod
    def now(
        cls,
        requirements: Mapping[str, str],
        step: int,
        command: str,
        versions: Mapping[str, str],
        callbacks: Sequence[str],
    ) -> "Statement":
        """Return a statement of this moment.

        Example:
            >>> one = Statement.now({"accuracy": "drop<=0.01"}, 0, "train.py", {}, [])
            >>> one.is_before, one.sentence().startswith("Stated before the first step, on ")
            (True, True)
        """
        time = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(dict(requirements), time, step, command, dict(versions), list(callbacks))

    @property
    def is_before(self) -> bool:
        """Whether it was written down before the first step."""
        return self.step == 0

    @property
    def sha256(self) -> str:
        """The checksum of all but the readings and the failure, which come later."""
        plain = {name: value for name, value in asdict(self).items() if name not in ("readings", "failure")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def sentence(self) -> str:
        """Return in words what was stated, and when."""
        when = "before the first step" if self.is_before else f"after {self.step} steps"
        what = ", ".join(f"{name} {text}" for name, text in self.requirements.items()) or "no requirements"
        return f"Stated {when}, on {self.time.replace('T', ' at ')}: {what}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with their checksum."""
        return {**asdict(self), "sha256": self.sha256}

    @classmethod
    def from_dict(cls, values: Any, source: str = STATED) -> "Statement":
        """Return the statement in plain values.

        Args:
            values: as :meth:`to_dict` gives them.
            source: where they come from, for errors.

        Raises:
            ValueError: they are no statement, or were changed since; one sentence.
        """
        check_schema(values, _Stated, source)
        plain = dict(cast(_Stated, values))
        expected = plain.pop("sha256")
        found = cls(**cast(Any, plain))
        if found.sha256 != expected:
            raise ValueError(f"{source} was changed since it was written: its checksum is another.")
        return found

    def write(self, folder: Path) -> None:
        """Write it to a folder, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        write_json(folder / STATED, self.to_dict())

    def read_once_more(self) -> "Statement":
        """Return it with one more reading of the test samples, and no failure."""
        return replace(self, readings=self.readings + 1, failure="")


@closed
class _Stated(TypedDict):
    requirements: dict[str, str]
    time: str
    step: NonNegative
    command: str
    versions: dict[str, str]
    callbacks: list[str]
    readings: NonNegative
    failure: str
    sha256: str


STATEMENT = _Stated
"""What :meth:`Statement.to_dict` gives, for the schema of a callback's state."""


def read_statement(folder: Path) -> Statement | None:
    """Return the statement in a folder, ``None`` where there is none.

    Raises:
        ValueError: it is damaged, or was changed; one sentence.
    """
    path = Path(folder) / STATED
    return Statement.from_dict(read_json(path), str(path)) if path.is_file() else None


def refuse_unfinished(folder: Path) -> None:
    """Refuse a folder of a run that has not ended, or whose report failed: what it has is a statement.

    Raises:
        ValueError: one sentence that says so, and what was stated.

    Example:
        >>> refuse_unfinished(Path("no such folder"))
    """
    if (Path(folder) / FACTS).is_file():
        return
    stated = read_statement(folder)
    if stated is None:
        return
    if stated.failure:
        raise ValueError(f"The run in '{folder}' ended without a report: {stated.failure} {stated.sentence()}")
    raise ValueError(
        f"The run in '{folder}' did not end, so there is no report: resume it with ckpt_path. {stated.sentence()}"
    )

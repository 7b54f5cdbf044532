"""A verdict of non-inferiority: does a candidate meet what was required of it, and how sure are the samples of that."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lit_xai.report.evidence import LEVEL, Evidence
from lit_xai.retention.requirements import Requirement

Outcome = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True)
class Exact:
    """A number without chance: the size of a file, a count of operations.

    Args:
        value: the number.
        n: none.
        unit: of ``n``.
    """

    value: float
    n: int = 0
    unit: str = "samples"

    def above(self, margin: float) -> float:
        """Return 0.0 if it lies above, else 1.0."""
        return 0.0 if self.value > margin else 1.0

    def below(self, margin: float) -> float:
        """Return 0.0 if it lies below or at the margin, else 1.0."""
        return 0.0 if self.value <= margin else 1.0

    def bounds(self) -> tuple[float, float]:
        """Return the number, twice."""
        return self.value, self.value

    def needed(self, margin: float, level: float = LEVEL) -> int | None:
        """Return nothing, as no sample would tell more."""
        return None


@dataclass(frozen=True)
class Line:
    """One requirement, and what became of it.

    Args:
        requirement: it.
        outcome: ``"passed"`` if the 95% bound lies inside the margin; ``"failed"`` if the opposite bound lies outside,
            by Holm's correction for as many lines as there are; else ``"inconclusive"``.
        value: the number that it is about; NaN if nothing is known of it.
        low: its lower bound of 95%.
        high: its upper bound of 95%.
        n: samples, or what ``unit`` says.
        needed: the samples that would decide an inconclusive line, if the number is what it seems to be.
        p_passed: the p-value of the test that it passes by.
        p_failed: the p-value of the test that it fails by, before correction.
        reason: why nothing is known of the number.
        unit: what ``n`` counts: ``"samples"``, ``"clusters"`` or ``"rounds"``.
    """

    requirement: Requirement
    outcome: Outcome
    value: float = math.nan
    low: float = -math.inf
    high: float = math.inf
    n: int = 0
    needed: int | None = None
    p_passed: float = 1.0
    p_failed: float = 1.0
    reason: str = ""
    unit: str = "samples"

    def __str__(self) -> str:
        """Return one sentence."""
        if self.reason:
            return f"{self.requirement}: {self.outcome}, as {self.reason}."
        interval = f" [{self.low:.4g}, {self.high:.4g}]" if self.low != self.high else ""
        of = f", n = {self.n}{'' if self.unit == 'samples' else f' {self.unit}'}" if self.n else ""
        more = ""
        if self.outcome == "inconclusive":
            more = "; no number of samples decides" if self.needed is None else f"; about {self.needed} would decide"
        return f"{self.requirement}: {self.outcome} with {self.value:.4g}{interval}{of}{more}."


@dataclass(frozen=True)
class Verdict:
    """What became of all requirements.

    Args:
        outcome: ``"passed"`` if every line is; ``"failed"`` if one is; else ``"inconclusive"``.
        lines: one for each.
    """

    outcome: Outcome
    lines: tuple[Line, ...]

    @property
    def exit_code(self) -> int:
        """The process's: 0 passed, 10 failed, 11 inconclusive."""
        return {"passed": 0, "failed": 10, "inconclusive": 11}[self.outcome]

    def __str__(self) -> str:
        """Return the outcome and a sentence for each line."""
        return "\n".join([f"Verdict: {self.outcome}.", *(f"  {line}" for line in self.lines)])


def judge(requirements: Sequence[Requirement], evidence: Mapping[str, Evidence | str]) -> Verdict:
    """Return the verdict on a candidate.

    That all lines pass needs no correction, as each has to pass at 5% by itself; that one of many fails does, and it is
    Holm's (S. Holm 1979, https://www.jstor.org/stable/4615733).

    Args:
        requirements: what was required.
        evidence: of each of them, by :func:`quantity`; a text says why there is none.

    Example:
        >>> from lit_xai.report.evidence import Share, ShareDrop
        >>> wanted = [Requirement.read("accuracy", "drop<=0.01"), Requirement.read("flips", "<=0.02")]
        >>> print(judge(wanted, {"accuracy drop": ShareDrop(9, 8, 2000), "flips": Share(80, 2000)}))
        Verdict: failed.
          accuracy drop<=0.01: passed with 0.0005 [-0.003112, 0.004179], n = 2000.
          flips <=0.02: failed with 0.04 [0.03305, 0.04798], n = 2000.
    """
    known = [evidence.get(quantity(one), "nothing was measured by this name") for one in requirements]
    tails = [(1.0, 1.0) if isinstance(e, str) else _tails(r, e) for r, e in zip(requirements, known, strict=True)]
    failed = holm([of_failing for _, of_failing in tails])
    lines = tuple(
        _line(r, e, p, is_failed, LEVEL / len(tails))
        for r, e, p, is_failed in zip(requirements, known, tails, failed, strict=True)
    )
    outcomes = {line.outcome for line in lines}
    if "failed" in outcomes:
        return Verdict("failed", lines)
    return Verdict("passed" if outcomes == {"passed"} else "inconclusive", lines)


def quantity(requirement: Requirement) -> str:
    """Return the name of the number that a requirement is about.

    Example:
        >>> quantity(Requirement.read("accuracy", "drop<=0.01")), quantity(Requirement.read("flips", "<=0.02"))
        ('accuracy drop', 'flips')
    """
    relation = requirement.relation.removesuffix("<=").removesuffix(">=")
    return f"{requirement.name} {relation}".strip()


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Return which of several null hypotheses are rejected, such that none is wrongly in 95 of 100 cases.

    Args:
        p_values: of each.
        level: of all together.

    Example:
        >>> holm([0.001, 0.04, 0.03])
        [True, False, False]
    """
    rejected = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def _tails(requirement: Requirement, evidence: Evidence) -> tuple[float, float]:
    """Return the p-values of the tests that the requirement is met, and that it is not."""
    above, below = evidence.above(requirement.bound), evidence.below(requirement.bound)
    if isinstance(evidence, Exact) and evidence.value == requirement.bound:
        return 0.0, 1.0
    return (above, below) if requirement.relation == ">=" else (below, above)


def _line(
    requirement: Requirement, evidence: Evidence | str, tails: tuple[float, float], is_failed: bool, strict: float
) -> Line:
    if isinstance(evidence, str):
        return Line(requirement, "inconclusive", reason=evidence)
    outcome: Outcome = "passed" if tails[0] <= LEVEL else "failed" if is_failed else "inconclusive"
    low, high = evidence.bounds()
    # To fail it takes the level that is left by Holm's correction.
    looks_met = tails[0] < tails[1]
    needed = evidence.needed(requirement.bound, LEVEL if looks_met else strict) if outcome == "inconclusive" else None
    return Line(requirement, outcome, evidence.value, low, high, evidence.n, needed, *tails, unit=evidence.unit)


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """Return plain values, for JSON."""
    lines = [
        {
            "requirement": str(line.requirement),
            "outcome": line.outcome,
            "value": line.value,
            "low": line.low,
            "high": line.high,
            "n": line.n,
            "unit": line.unit,
            "needed": line.needed,
            "reason": line.reason,
        }
        for line in verdict.lines
    ]
    return {"outcome": verdict.outcome, "lines": lines}

"""How many samples an explainer explains, so that it keeps within the time for what is measured once."""

import math
from dataclasses import dataclass

from lit_xai.retention.budget import GRACE, samples_in_time
from lit_xai.retention.comparison import Comparison
from lit_xai.retention.explainer import Explainer
from lit_xai.retention.intervals import FEWEST
from lit_xai.trainer.budget import Budget

FEWEST_NULLS = 5
"""Untrained networks, of which fewer say little."""

NETWORKS = FEWEST_NULLS + 2
"""Networks that are explained at least: these, the reference, and the model at the end."""


@dataclass(frozen=True)
class InTime:
    """How many samples one explainer can explain in its time.

    Args:
        explainer: its name.
        n: how many, at most those that are wanted.
        wanted: all of them, with those that are explained for a part alone.
        each: seconds that the least of networks takes for a sample.
        allowed: seconds that they may take.
        needed: the share of the run's time that would do for all samples.
    """

    explainer: str
    n: int
    wanted: int
    each: float
    allowed: float
    needed: float

    @classmethod
    def of(cls, comparison: Comparison, explainer: Explainer, budget: Budget, share: float, done: float) -> "InTime":
        """Explain a few samples of the reference to see; call it on every process.

        Args:
            comparison: with the reference.
            explainer: of all networks.
            budget: the time of the run.
            share: of what is left for what is measured once, which the explainer may take.
            done: the share of the run that is over.
        """
        wanted = len(comparison.sample)
        allowed = comparison.same(max(GRACE, budget.left_once(done) * share))
        n, each = samples_in_time(allowed, wanted, NETWORKS, lambda few: comparison.seconds(explainer, few))
        needed = comparison.same(budget.share_of(each * wanted / share, done))
        return cls(explainer.name, min(n, wanted), wanted, each, allowed, needed)

    @property
    def is_all(self) -> bool:
        """Whether all samples can be explained."""
        return self.n == self.wanted

    @property
    def least(self) -> int:
        """The fewest samples that are explained."""
        return min(FEWEST, self.wanted)

    @property
    def is_enough(self) -> bool:
        """Whether samples for an interval can be explained."""
        return self.n >= self.least

    def in_words(self, n: int) -> str:
        """Return the time of some samples beside what is left, and what lets all of them be explained.

        Args:
            n: of the samples.

        Example:
            >>> print(InTime("Occlusion", 17, 256, 1.0, 15.5, 2.31).in_words(256))
            on 256 samples it would take about 256 s where time_budget leaves 16 s: time_budget=2.4 lets all of it run
        """
        digits = 10 if self.needed >= 1 else 100
        needed = math.ceil(self.needed * digits) / digits
        return (
            f"on {n} samples it would take about {self.each * n:.0f} s where time_budget leaves {self.allowed:.0f} s:"
            f" time_budget={needed:g} lets all of it run"
        )

"""How well a tree answers for a network, in numbers and in the sentences that stand above it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SIZES = (4, 8, 16, 32, 64)
"""Leaves of the trees that a fidelity is held against: would more help, would fewer do?"""
FAITHFUL = 0.9
"""The fidelity below which a tree is not to be read as the network."""


@dataclass(frozen=True)
class Fidelity:
    """What a tree's answers have in common with the network's, on held-out samples.

    Args:
        value: the share of samples for which both give the same class; of values, the share of the variance, R².
        n: how many samples.
        of_values: whether it is R².
        constant: for classes, the most frequent answer and the share that it alone gets.
        by_leaves: the fidelity of trees of other sizes.
        label_agreement: of the tree with the labels.
        label_tree: of a tree that was fitted to the labels, with the labels.

    Example:
        >>> few = Fidelity(0.76, 144, constant=("7", 0.09), by_leaves={16: 0.76, 64: 0.84})
        >>> few.is_low
        True
        >>> print(few.caution())
        Not faithful: for 24% of the samples the network answers otherwise than this tree (with 64 leaves: 16%).
    """

    value: float
    n: int
    of_values: bool = False
    constant: tuple[str, float] | None = None
    by_leaves: Mapping[int, float] = field(default_factory=dict)
    label_agreement: float | None = None
    label_tree: float | None = None

    @property
    def is_constant(self) -> bool:
        """Whether a tree gets less than half of what its most frequent answer alone gets wrong."""
        return self.constant is not None and 1 - self.value > (1 - self.constant[1]) / 2

    @property
    def is_low(self) -> bool:
        """Whether the tree is not to be read as the network."""
        return self.value < FAITHFUL or (self.is_constant and self.value < 1)

    def caution(self) -> str:
        """Return what is wrong with reading this tree as the network; empty where nothing is."""
        if not self.is_low:
            return ""
        more = max(self.by_leaves, default=0)
        helps = more and self.by_leaves[more] > self.value
        other = f" (with {more} leaves: {self._missed(self.by_leaves[more])})" if helps else ""
        missed = self._missed(self.value)
        if self.of_values:
            return f"Not faithful: {missed} of the variance of the network's answers is not in this tree{other}."
        if self.value < FAITHFUL:
            return f"Not faithful: for {missed} of the samples the network answers otherwise than this tree{other}."
        name, share = self.constant or ("", 0.0)
        return f"Tells little: to answer {name} always agrees with the network for {self._told(share)} of the samples."

    def summary(self) -> str:
        """Return the numbers in words."""
        alone = f" ({self.constant[0]} for all of them: {self._told(self.constant[1])})" if self.constant else ""
        lines = [f"agrees with the network on {self.n:,} held-out samples: {self._told(self.value)}{alone}"]
        sizes = [f"{leaves}: {self._told(value)}" for leaves, value in sorted(self.by_leaves.items())]
        if sizes:
            lines.append(f"trees by their leaves: {' · '.join(sizes)}")
        labels = {"this tree": self.label_agreement, "a tree on the labels": self.label_tree}
        told = [f"{name} {self._told(value)}" for name, value in labels.items() if value is not None]
        if told:
            lines.append(f"with the labels: {', '.join(told)}")
        if not self.of_values:
            lines.append("bars: share of samples that end there; in brackets: how many agree")
        return "\n".join(lines)

    def _told(self, value: float) -> str:
        return f"R² = {value:.2f}".replace("-", "\N{MINUS SIGN}") if self.of_values else f"{100 * value:.0f}%"

    def _missed(self, value: float) -> str:
        return f"{100 * min(1 - value, 1):.0f}%"

"""The Pareto front: what no other beats in one objective without losing in another."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lit_xai.network.check import refusal

Direction = Literal["minimize", "maximize"]
"""Optuna's words."""


def pareto_front(values: Sequence[Sequence[float | None]], directions: Sequence[Direction]) -> list[bool]:
    """Return which candidates are on the Pareto front: no other is as good in every objective and better in one.

    Of several equal ones all are on it. One of which an objective is unknown (``None`` or NaN) is not, and beats none.

    Args:
        values: of each candidate, ``(candidates, objectives)``.
        directions: of each objective, ``"minimize"`` or ``"maximize"``, as in Optuna.

    Raises:
        ValueError: a direction is another word, or a candidate has another number of objectives.

    Example:
        >>> pareto_front([(0.9, 10), (0.8, 5), (0.8, 7), (0.9, None)], ["maximize", "minimize"])
        [True, True, False, False]
    """
    signs = [_sign(one) for one in directions]
    for place, row in enumerate(values):
        if len(row) != len(signs):
            raise refusal(f"values[{place}]", f"{len(signs)} numbers, one for each direction", list(row))
    if not len(values):
        return []
    costs: NDArray[np.float64] = np.array(values, dtype=np.float64) * signs  # None becomes NaN
    known = [not bool(np.isnan(one).any()) for one in costs]
    others = costs[known]
    return [
        bool(is_known and not ((others <= one).all(1) & (others < one).any(1)).any())
        for one, is_known in zip(costs, known, strict=True)
    ]


def _sign(direction: Any) -> int:
    if direction not in ("minimize", "maximize"):
        raise refusal("directions", "'minimize' or 'maximize' for each objective", direction)
    return 1 if direction == "minimize" else -1

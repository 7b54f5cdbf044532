"""Reason codes: the features that speak most for a decision, and whether another network names the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lit_xai.attribution.adapter import SplitInputs
from lit_xai.network.check import refusal

if TYPE_CHECKING:  # Lightning comes with it, which functions of reports do without
    from lit_xai.retention.figures import BothMaps

Array: TypeAlias = NDArray[np.float64]
FeatureGroups: TypeAlias = Mapping[str, Sequence[int | str]] | Sequence[str]
"""The columns that are one feature: those of each group, or the feature that each column belongs to."""

K = 4
"""Reasons of a decision."""


@dataclass(frozen=True)
class Groups:
    """The features that count as one: the columns of a one-hot encoding.

    Args:
        names: of features and groups.
        member: the place of each column's in ``names``, ``(F,)``.
    """

    names: tuple[str, ...]
    member: NDArray[np.int64]

    @classmethod
    def of(cls, columns: int, names: Sequence[str] | None, groups: FeatureGroups | None) -> "Groups":
        """Return the groups of a table's columns; what is in none is a feature by itself.

        Args:
            columns: their number.
            names: of the columns.
            groups: the columns of each, by number or name; or the feature that each column belongs to.

        Raises:
            ValueError: a group has an unknown column, or one that another has; or not every column has a feature.

        Example:
            >>> Groups.of(4, ["age", "a", "b", "c"], {"kind": ["a", "b", "c"]}).names
            ('age', 'kind')
            >>> Groups.of(4, None, ["age", "kind", "kind", "kind"]).member.tolist()
            [0, 1, 1, 1]
        """
        if groups is not None and not isinstance(groups, Mapping):
            if len(groups) != columns:
                raise refusal("feature_groups", f"{columns} names, the feature of each column", len(groups))
            groups = {name: [k for k, one in enumerate(groups) if one == name] for name in dict.fromkeys(groups)}
        known = list(names) if names is not None else [f"x{place}" for place in range(columns)]
        owner: dict[int, str] = {}
        for group, members in (groups or {}).items():
            for one in members:
                place = known.index(one) if isinstance(one, str) and one in known else one
                if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < columns or place in owner:
                    raise refusal("feature_groups", f"each of {columns} columns in one group at most", one)
                owner[place] = str(group)
        labels = [owner.get(place, known[place]) for place in range(columns)]
        unique = tuple(dict.fromkeys(labels))
        return cls(unique, np.array([unique.index(label) for label in labels]))

    def sums(self, values: Array) -> Array:
        """Return the contributions of features and groups, ``(N, groups)``, of those of columns ``(N, F)``."""
        found = np.zeros((len(values), len(self.names)))
        np.add.at(found.T, self.member, values.T)
        return found


def changed_reasons(before: Array, after: Array, noise: float = 0.0, k: int = K) -> tuple[Any, Any]:
    """Return for which samples the set of the top reasons changed, and for which their order did, ``(N,)`` each.

    Contributions that are closer than the noise are equal: a feature leaves the set only if it is surely among the top
    ``k`` by one network, and surely not by the other. Only what speaks for the decision is a reason.

    Args:
        before: contributions towards the decision, ``(N, features)``.
        after: by another network.
        noise: below which they are equal.
        k: reasons of a decision.

    Example:
        >>> before = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
        >>> after = np.array([[2.0, 3.0, 1.0], [3.0, 1.0, 2.0]])
        >>> changed_reasons(before, after, k=2)
        (array([False,  True]), array([ True, False]))
    """
    (first, maybe_first), (last, maybe_last) = (_in_and_maybe(one, noise, k) for one in (before, after))
    in_set = ((first & ~maybe_last) | (last & ~maybe_first)).any(1)
    both = maybe_first & maybe_last
    pairs = both[:, :, None] & both[:, None, :]
    above = before[:, :, None] > before[:, None, :] + noise
    below = after[:, :, None] < after[:, None, :] - noise
    return in_set, (above & below & pairs).any((1, 2))


def _in_and_maybe(values: Array, noise: float, k: int) -> tuple[Any, Any]:
    """Return which features are surely among the top reasons, and which may be."""
    ordered = -np.sort(-values, axis=1)
    zero = np.zeros((len(values), 1))
    last_in = np.maximum(ordered[:, k - 1 : k] if values.shape[1] >= k else zero, 0.0)
    first_out = np.maximum(ordered[:, k : k + 1] if values.shape[1] > k else zero, 0.0)
    return values > first_out + noise, (values >= last_in - noise) & (values > -noise)


def reasons_changed(both: "BothMaps", groups: FeatureGroups | None = None, k: int = K) -> float | None:
    """Return the share of samples of a table for which another set of features speaks most for the decision now.

    Only samples count whose prediction is the same; explained is the reference's prediction.

    Args:
        both: the explanations before and now.
        groups: the columns that are one feature.
        k: reasons of a decision.

    Returns:
        The share, or ``None`` where the inputs are no table of more features than reasons.
    """
    split = SplitInputs(both.inputs, any_dtype=True)
    if len(split.explained) != 1 or len(both.reference) != 1:
        return None
    inputs = split.values[split.explained[0]]
    (before,), (now,) = both.reference.values(), both.present.values()
    if inputs.dim() != 2 or not inputs.is_floating_point() or before.shape != inputs.shape:
        return None
    found = Groups.of(inputs.shape[1], None, groups)
    kept = ~both.flipped.numpy()
    if len(found.names) <= k or not kept.any():
        return None
    sums = [found.sums(one.double().cpu().numpy())[kept] for one in (before, now)]
    return float(changed_reasons(sums[0], sums[1], k=k)[0].mean())

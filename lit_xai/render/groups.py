"""Columns of a table that are one feature, such as those of a category, added up."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lit_xai.render.shares import Array, Shares, shares_of_total


def group_names(feature_groups: Sequence[str]) -> list[str]:
    """Return the features in the order of their first columns.

    Example:
        >>> group_names(["age", "job", "job"])
        ['age', 'job']
    """
    return list(dict.fromkeys(str(name) for name in feature_groups))


def group_columns(feature_groups: Sequence[str], columns: int) -> list[list[int]]:
    """Return the columns of each feature.

    Args:
        feature_groups: the feature that each column belongs to.
        columns: their number.

    Raises:
        ValueError: there are more or fewer of them.

    Example:
        >>> group_columns(["age", "job", "job"], 3)
        [[0], [1, 2]]
    """
    if len(feature_groups) != columns:
        raise ValueError(f"feature_groups expected {columns} names, one per column, but got {len(feature_groups)}.")
    owners = [str(name) for name in feature_groups]
    return [[k for k, owner in enumerate(owners) if owner == name] for name in group_names(owners)]


def group_shares(shares: Shares, feature_groups: Sequence[str]) -> Shares:
    r"""Return the shares of features, from those of columns: :math:`s_g = \sum_{i \in g} a_i / \sum_h |a_h|`.

    A feature's attribution is the sum of its columns', with their signs, so a feature whose columns cancel counts for
    nothing, and so does its part of the total.

    Args:
        shares: ``(N, columns)``.
        feature_groups: the feature that each column belongs to.

    Raises:
        ValueError: there is not one for each column.

    Example:
        >>> columns = shares_of_total(np.array([[2.0, 3.0, -1.0]]))
        >>> found = group_shares(columns, ["age", "job", "job"])
        >>> found.values, found.totals
        (array([[0.5, 0.5]]), array([4.]))
    """
    groups = group_columns(feature_groups, shares.values.shape[1])
    sums = np.stack([shares.values[:, columns].sum(1) for columns in groups], 1)
    # Of columns that cancel, rounding leaves something like 1e-17, which alone in a sample would become all of it.
    sums[np.abs(sums) < 1e-12] = 0.0
    found = shares_of_total(sums)
    return replace(shares, values=found.values, totals=found.totals * shares.totals)


def single_columns(values: Array, feature_groups: Sequence[str]) -> Array:
    """Return the values of features that are one column, ``(N, groups)``; NaN for those of several.

    Example:
        >>> single_columns(np.array([[30.0, 0.0, 1.0]]), ["age", "job", "job"])
        array([[30., nan]])
    """
    found = [
        values[:, columns[0]] if len(columns) == 1 else np.full(len(values), np.nan)
        for columns in group_columns(feature_groups, values.shape[1])
    ]
    return np.stack(found, 1)

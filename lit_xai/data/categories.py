"""Categories as numbers: the codes of text, and one column of zeros and ones for each category."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_xai.network.check import refusal

UNKNOWN = "unknown"
"""The name of the category that stands for those that training has not seen."""


@dataclass(frozen=True)
class Columns:
    """The columns that a network gets, after each category has become one.

    Args:
        values: ``(N, columns)``.
        names: one per column, ``"education=Bachelors"`` for a category's.
        groups: the feature that each belongs to, ``"education"``.
        are_categories: which columns are a category's, ``(columns,)``.
    """

    values: Tensor
    names: list[str]
    groups: list[str]
    are_categories: Tensor


def one_hot(features: Tensor, names: Sequence[str], categories: Mapping[str, Sequence[str]]) -> Columns:
    """Replace each column of category codes by a column of zeros and ones per category.

    Args:
        features: ``(N, features)``; the column of a categorical feature holds indices into its categories.
        names: of the features.
        categories: of each categorical feature, by its name.

    Example:
        >>> found = one_hot(torch.tensor([[30.0, 1.0], [41.0, 0.0]]), ["age", "job"], {"job": ["cook", "nurse"]})
        >>> found.names, found.groups
        (['age', 'job=cook', 'job=nurse'], ['age', 'job', 'job'])
        >>> found.values.tolist()
        [[30.0, 0.0, 1.0], [41.0, 1.0, 0.0]]
    """
    blocks: list[Tensor] = []
    columns: list[str] = []
    groups: list[str] = []
    for column, name in zip(features.T, names, strict=True):
        if name in categories:
            known = categories[name]
            blocks.append(torch.nn.functional.one_hot(column.long(), len(known)).to(features.dtype))
            columns += [f"{name}={category}" for category in known]
            groups += [name] * len(known)
        else:
            blocks.append(column[:, None])
            columns.append(name)
            groups.append(name)
    are_categories = torch.tensor([group in categories for group in groups])
    return Columns(torch.cat(blocks, 1), columns, groups, are_categories)


def find_categories(values: Sequence[str], min_count: int = 1) -> list[str]:
    """Return the different values in alphabetical order, whole numbers by their size.

    Args:
        values: of all rows.
        min_count: rows that a category needs.

    Example:
        >>> find_categories(["nurse", "cook", "nurse"]), find_categories(["10", "9"]), find_categories("abb", 2)
        (['cook', 'nurse'], ['9', '10'], ['b'])
    """
    known = [value for value, count in Counter(values).items() if count >= min_count]
    are_numbers = all(value.lstrip("-").isdecimal() for value in known)
    return sorted(known, key=(lambda value: (int(value), value)) if are_numbers else None)


def category_codes(name: str, values: Sequence[str], categories: Sequence[str]) -> list[int]:
    """Return each value's index among the categories; what is none of them is ``"unknown"`` where that is one.

    Args:
        name: of the feature.
        values: of all rows.
        categories: those that are known.

    Raises:
        ValueError: a value is not among them.

    Example:
        >>> category_codes("job", ["nurse", "pilot"], ["cook", "nurse", "unknown"])
        [1, 2]
    """
    places = {category: place for place, category in enumerate(categories)}
    if UNKNOWN not in places:
        for row, value in enumerate(values):
            if value not in places:
                raise refusal(name, f"one of {len(categories)} categories", value, f"It is the value of row {row}.")
    return [places[value] if value in places else places[UNKNOWN] for value in values]

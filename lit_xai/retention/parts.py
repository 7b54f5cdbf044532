"""The parts of the samples whose explanations are told apart: the class that hurts, and groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_xai.network.check import refusal
from lit_xai.network.spelling import nearest

FEWEST_OF_PART = 100
"""Explained samples of a part; one of which there are fewer is not told apart."""


def class_number(given: int | str, names: Sequence[str] | None, classes: int | None) -> int:
    """Return the number of the adverse class.

    Args:
        given: a number or a name.
        names: of all classes, if they are known.
        classes: how many there are; ``None`` where outputs are no scores of classes.

    Raises:
        ValueError: there is no such class; one sentence.

    Example:
        >>> class_number("malignant", ["benign", "malignant"], 2)
        1
        >>> class_number(2, None, 2)
        Traceback (most recent call last):
        ...
        ValueError: adverse_class expected a class from 0 to 1, but got 2.
    """
    if classes is None:
        raise refusal("adverse_class", "None, as the network's outputs are no scores of classes", given)
    if isinstance(given, str):
        if names is None or given not in names:
            hint = nearest(given, list(names)) if names else " Name a number, or class_names in the data module."
            raise refusal("adverse_class", "the name of a class", given, hint)
        given = list(names).index(given)
    if not 0 <= given < classes:
        raise refusal("adverse_class", f"a class from 0 to {classes - 1}", given)
    return given


def parts_of(
    groups: Mapping[str, Sequence[Any]], predicted: Tensor | None, adverse: tuple[str, int] | None
) -> dict[str, Tensor]:
    """Return which samples belong to each part, ``(N,)``, by its name.

    Args:
        groups: of each sample, by the name of what groups them.
        predicted: by the reference, ``(N,)``; ``None`` where there are no classes.
        adverse: the adverse class's name and number, if one is named.

    Example:
        >>> parts = parts_of({"site": ["a", "b", "a"]}, torch.tensor([0, 1, 1]), ("malignant", 1))
        >>> {name: mask.tolist() for name, mask in parts.items()}
        {'class malignant': [False, True, True], 'site=a': [True, False, True], 'site=b': [False, True, False]}
    """
    parts = {}
    if adverse is not None and predicted is not None:
        parts[f"class {adverse[0]}"] = predicted.cpu() == adverse[1]
    for name, values in groups.items():
        for one in sorted(set(values), key=str):
            parts[f"{name}={one}"] = torch.tensor([value == one for value in values])
    return parts


def with_parts(places: Sequence[int], parts: Mapping[str, Tensor]) -> tuple[list[int], dict[str, list[int]]]:
    """Return places to explain to which those are added that parts of the samples need to be told apart.

    Args:
        places: of the samples to explain.
        parts: which of all samples belong to each part, ``(available,)``.

    Returns:
        The places, the added ones last, and the rows among them of each part that has 100 or more.

    Example:
        >>> places, rows = with_parts([0, 1], {"site=a": torch.arange(300) >= 150, "site=b": torch.arange(300) < 9})
        >>> len(places), len(rows["site=a"]), "site=b" in rows
        (102, 100, False)
    """
    found, members = list(places), {name: mask.nonzero().flatten().tolist() for name, mask in parts.items()}
    members = {name: own for name, own in members.items() if len(own) >= FEWEST_OF_PART}
    for own in members.values():
        known = set(found)
        added = [place for place in own if place not in known]
        found += added[: max(0, FEWEST_OF_PART - (len(own) - len(added)))]
    row_of = {place: row for row, place in enumerate(found)}
    return found, {name: [row_of[place] for place in own if place in row_of] for name, own in members.items()}

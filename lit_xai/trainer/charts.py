"""The charts that a callback has for TensorBoard's page of custom scalars."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Chart:
    """A chart of several curves, or of one within its interval.

    Args:
        title: with the unit.
        tags: regular expressions of the curves' names; of a margin the names of value, lower and upper end.
        is_margin: whether the curve has an interval.
    """

    title: str
    tags: tuple[str, ...]
    is_margin: bool = False


def curve(tag: str) -> str:
    """Return the regular expression of one curve's name.

    Example:
        >>> curve("val_acc")
        '^val_acc$'
    """
    return f"^{re.escape(tag)}$"


def layout(charts: Sequence[Chart]) -> dict[str, dict[str, list[object]]]:
    """Return charts as ``SummaryWriter.add_custom_scalars`` takes them.

    Example:
        >>> layout([Chart("accuracy", ("^val_acc$",))])
        {'compression and explanations': {'accuracy': ['Multiline', ['^val_acc$']]}}
    """
    kinds = {True: "Margin", False: "Multiline"}
    return {"compression and explanations": {one.title: [kinds[one.is_margin], list(one.tags)] for one in charts}}

"""The target of a compression: one argument, as a share of the dense network or as an amount."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from lit_xai.network.check import is_number, refusal

Amount: TypeAlias = Annotated[int | float | str, "a share up to 1, or an amount"]
"""A target: a float up to 1 is a share, an integer or text such as ``"5M"`` an amount.

``Annotated`` keeps YAML's integers integers, see :data:`lit_xai.trainer.scheduling.Epochs`: 1 is no share.
"""

UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


@dataclass(frozen=True)
class Target:
    """The size to reach at the end of the plan.

    Args:
        name: of the argument, ``"pruning_ratio"``, ``"target_macs"``, ``"target_params"`` or ``"target_latency"``.
        amount: a share of the dense network's (of channels to remove, for ``pruning_ratio``), or an amount.
        is_share: whether it is a share.
    """

    name: str
    amount: float
    is_share: bool

    def at(self, dense: float, progress: float) -> float:
        """Return the size to reach when a share of ``progress`` is done.

        Raises:
            ValueError: the target is larger than the dense network.

        Example:
            >>> Target("target_macs", 0.25, True).at(dense=100, progress=0.5)
            62.5
        """
        final = dense * self.amount if self.is_share else self.amount
        if final > dense * 1.02:
            raise ValueError(f"{self.name} expected at most the dense network's {dense:.6g}, but got {final:.6g}.")
        # Linear in the size from dense to final; the schedule bends `progress`.
        return dense - progress * (dense - final)


DEFAULT = Target("target_macs", 0.5, True)
"""The target of a run that is given none."""

LEAST = 0.05
"""The share of the MACs that has to go in such a run, where the target is out of reach."""


def choose_target(given: Mapping[str, Amount | None]) -> Target:
    """Return the one target that was given.

    Args:
        given: all of them by name, ``None`` for those left out. A float up to 1 is a share; an integer, or text such as
            ``"5M"`` or ``"3 ms"``, an amount.

    Raises:
        ValueError: none or several were given, or the value is neither.

    Example:
        >>> choose_target({"target_macs": "5M", "target_latency": None})
        Target(name='target_macs', amount=5000000.0, is_share=False)
        >>> choose_target({"target_macs": 0.25, "pruning_ratio": 0.5})
        Traceback (most recent call last):
        ...
        ValueError: Expected exactly one of target_macs, pruning_ratio, but got target_macs=0.25 and pruning_ratio=0.5.
    """
    found = {name: value for name, value in given.items() if value is not None}
    if len(found) != 1:
        got = " and ".join(f"{name}={value!r}" for name, value in found.items()) or "none of them"
        raise ValueError(f"Expected exactly one of {', '.join(given)}, but got {got}.")
    (name, value), *_ = found.items()
    if name == "pruning_ratio":
        return Target(name, float(check_ratio(value, name)), True)
    amount = _amount(name, value)
    if not amount > 0:
        raise refusal(name, "more than 0", value)
    # 1 as an integer is one MAC or parameter, 1.0 the whole network.
    return Target(name, amount, isinstance(value, float) and value <= 1)


def check_ratio(ratio: object, argument: str) -> float:
    """Check a share of channels to remove, and return it.

    Raises:
        ValueError: it is not in [0, 1).

    Example:
        >>> check_ratio(1.0, "pruning_ratio")
        Traceback (most recent call last):
        ...
        ValueError: pruning_ratio expected a share from 0 to below 1 to remove, but got 1.0.
    """
    if not is_number(ratio) or not 0 <= ratio < 1:  # type: ignore[operator]  # is_number lets numbers pass alone
        raise refusal(argument, "a share from 0 to below 1 to remove", ratio)
    return ratio  # type: ignore[return-value]  # as above


def _amount(name: str, value: object) -> float:
    if is_number(value):
        return float(value)  # type: ignore[arg-type]  # is_number lets numbers pass alone
    unit = r"(?:ms)?()" if name == "target_latency" else "([kmgb]?)"
    match = re.fullmatch(rf"\s*(\d+\.?\d*|\.\d+)\s*{unit}\s*", value, re.IGNORECASE) if isinstance(value, str) else None
    if match is None:
        example = "'3 ms'" if name == "target_latency" else "'5M'"
        raise refusal(name, f"a share up to 1, a number, or text such as {example}", value)
    return float(match[1]) * UNITS[match[2].lower()]

"""How much of what a training had learned is lost, told from its losses alone."""

import math
from collections.abc import Sequence

RANGES = 10.0
"""A loss that began low (a network trained before) has to rise by this many times its own range to count as risen."""

STILL_FALLING = 0.1
"""A fall from one half of the last losses to the other that counts as recovery, as a share of what was lost."""


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values is below; NaN counts as infinite.

    Example:
        >>> quantile([3.0, float("nan"), 1.0, 2.0], 0.5)
        3.0
    """
    ordered = sorted(math.inf if math.isnan(value) else value for value in values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Return the median; of an even number of values, the upper one of the two in the middle."""
    return quantile(values, 0.5)


def lost_share(
    first: Sequence[float], before: Sequence[float], shock: Sequence[float], after: Sequence[float]
) -> float:
    """Return the share of what a training had learned before a change that it has lost after it.

    0 is a loss as low as before the change, 1 one as high as at the start of the run, infinity one that is no finite
    number. It is 0 as well while the loss still falls, and where a quarter of the losses after the change are within
    the upper quarter of those before it: then nothing is certain. Losses may be of any scale and sign.

    The highest loss that a training can fall back to is that of the first steps of the run, or of those right after the
    change, whichever is higher: a network that was trained before the run starts low. Where it starts as low as it is
    before the change, only a rise by many times the range of the losses counts.

    Args:
        first: the first losses of the run.
        before: those before the change.
        shock: the first ones after it.
        after: the last ones.

    Example:
        >>> learned = [0.21, 0.19, 0.2, 0.22, 0.18]
        >>> round(lost_share(first=[2.3] * 5, before=learned, shock=[2.1] * 5, after=[0.41] * 50), 2)
        0.1
        >>> lost_share(first=[2.3] * 5, before=learned, shock=[0.2] * 5, after=[2.3] * 50)
        1.0
    """
    was, now = median(before), median(after)
    if not math.isfinite(now):
        return math.inf if math.isfinite(was) else 0.0
    if quantile(after, 0.25) <= quantile(before, 0.75):
        return 0.0
    # Right after the change no step has been taken that could have made it worse.
    worst = max(median(first), min(shock[:3]))
    half = len(after) // 2
    if quantile(first, 0.25) <= quantile(before, 0.75):
        level = median(after[half:])  # where a loss that comes down from a peak has come to
        worst = max(worst, level)
        if level - was < RANGES * (quantile(before, 0.9) - quantile(before, 0.1)):
            return 0.0
    # Up to the worst: a loss that comes back from a peak above it has recovered nothing.
    earlier, later = (min(median(part), worst) for part in (after[:half] or after, after[half:]))
    is_falling = earlier - later > STILL_FALLING * (worst - was)
    return 0.0 if is_falling else (now - was) / (worst - was)


def has_learned(first: Sequence[float], lowest: float, after: Sequence[float]) -> bool:
    """Return whether a loss fell since the start of the run, by a fifth and for good.

    Args:
        first: the first losses of the run; a loss that begins at zero or below tells nothing, which counts as learned.
        lowest: the lowest median on the way.
        after: the last ones.

    Example:
        >>> has_learned([2.4] * 5, 2.2, [2.3] * 50), has_learned([2.4] * 5, 0.3, [0.4] * 50)
        (False, True)
    """
    # A rate that is far too high shows from the second step on, and what follows is no start.
    start, now = min(first[:3]), median(after)
    if not start > 0:
        return math.isfinite(now)
    has_relapsed = now - lowest >= 0.6 * (start - lowest) > 0
    return now < 0.8 * start and not has_relapsed

"""What can be explained, and held against a result, in the time that is left for it."""

from collections.abc import Callable

GRACE = 10.0
"""Seconds that the least of what is measured once may take in a run of any length."""

PIECES = (2, 8, 32)
"""Samples that are explained to learn what all of them would take."""


def plan_references(
    allowed: float, each: float, nulls: int, ladder: int, fewest: int, grace: float = 0.0
) -> tuple[int, int]:
    """Return how many untrained networks and lines of the ladder fit into a time.

    The ladder goes first, then untrained networks down to a few, and then these.

    Args:
        allowed: seconds.
        each: seconds that one network takes.
        nulls: how many are wanted.
        ladder: likewise.
        fewest: untrained networks, of which fewer say nothing.
        grace: seconds that these may take in any case.

    Example:
        >>> plan_references(100.0, 1.0, nulls=10, ladder=4, fewest=5)
        (10, 4)
        >>> plan_references(12.0, 1.0, nulls=10, ladder=4, fewest=5)
        (10, 0)
        >>> plan_references(1.0, 1.0, nulls=10, ladder=4, fewest=5, grace=5.0)
        (5, 0)
        >>> plan_references(1.0, 1.0, nulls=10, ladder=4, fewest=5)
        (0, 0)
    """
    fit, few = int(allowed / max(each, 1e-9)), min(nulls, fewest)
    if fit >= nulls + ladder:
        return nulls, ladder
    if fit >= few:
        return min(nulls, fit), 0
    return (few if few * each <= grace else 0), 0


def samples_in_time(allowed: float, n: int, networks: int, seconds: Callable[[int], float]) -> tuple[int, float]:
    """Return how many samples several networks can be explained on in a time, and what each takes.

    A few are explained first, and then more of them, as the first ones are the dearest, while that costs little.

    Args:
        allowed: seconds.
        n: how many are wanted.
        networks: that are explained.
        seconds: explain so many samples of one network, and return what that took.

    Returns:
        At most ``n``, and the seconds that all networks take for each sample.

    Example:
        >>> samples_in_time(100.0, 256, 7, lambda few: 0.01 * few)[0]
        256
        >>> samples_in_time(7.0, 256, 7, lambda few: 0.01 * few)[0]  # less what the first ones cost
        93
    """
    left = allowed
    for few in (min(piece, n) for piece in PIECES):
        took = seconds(few)
        left -= took
        each = max(networks * took / few, 1e-9)
        if each * n <= allowed:
            return n, each
        if few == n or 4 * took > allowed / 3:  # the next piece
            break
    return min(n, int(max(0.0, left) / each)), each

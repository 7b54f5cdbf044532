"""What can be held against a result in the time that is left for it."""


def plan_references(allowed: float, each: float, nulls: int, ladder: int, fewest: int) -> tuple[int, int]:
    """Return how many untrained networks and lines of the ladder fit into a time.

    The ladder goes first, and then untrained networks down to a few.

    Args:
        allowed: seconds.
        each: seconds that one network takes.
        nulls: how many are wanted.
        ladder: likewise.
        fewest: untrained networks that are explained in any case.

    Example:
        >>> plan_references(100.0, 1.0, nulls=10, ladder=4, fewest=5)
        (10, 4)
        >>> plan_references(12.0, 1.0, nulls=10, ladder=4, fewest=5)
        (10, 0)
        >>> plan_references(1.0, 1.0, nulls=10, ladder=4, fewest=5)
        (5, 0)
    """
    fit = int(allowed / max(each, 1e-9))
    if fit >= nulls + ladder:
        return nulls, ladder
    return max(min(nulls, fit), min(nulls, fewest)), 0

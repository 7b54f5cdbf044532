"""Nearest names, for errors that suggest the right spelling."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """Return ``" Did you mean 'a' or 'b'?"`` for a misspelled name, or ``""`` if no known name is similar.

    Args:
        name: the misspelled name.
        known: the valid names.
        n: the most suggestions.

    Example:
        >>> nearest("IntegratedGradient", ["IntegratedGradients", "Occlusion"])
        " Did you mean 'IntegratedGradients'?"
        >>> nearest("zzz", ["IntegratedGradients", "Occlusion"])
        ''
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=n, cutoff=0.55)]
    # Users often give only the last part of a dotted name ("conv1" for "network.conv1").
    matches += [k for k in by_lower.values() if k.endswith(f".{name}") and k not in matches][: n - len(matches)]
    return f" Did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""

"""The nearest name, before torch is imported."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'a'?"`` for a misspelt name, or ``""`` when nothing comes close.

    :func:`lit_xai.functional.spelling.nearest` says more, but lies in a package that imports torch.

    Example:
        >>> did_you_mean("diggits", ["base", "digits"])
        " Did you mean 'digits'?"
    """
    close = get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""

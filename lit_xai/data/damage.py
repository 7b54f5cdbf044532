"""The error for a damaged data file."""

from pathlib import Path


def damaged(path: Path, what: str) -> ValueError:
    """Return the error for a file whose content does not match its name."""
    return ValueError(
        f"'{path}' cannot be read ({what}): delete it and set `download=True`, or put the original file there."
    )

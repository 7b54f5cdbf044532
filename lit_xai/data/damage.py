"""The error for a damaged file."""

from pathlib import Path


def damaged(path: Path, what: str) -> ValueError:
    """Return the error for a file that cannot be what its name says."""
    return ValueError(
        f"'{path}' cannot be read ({what}): delete it and set `download=True`, or put the original file there."
    )

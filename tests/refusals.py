"""A check of errors: one sentence that names the argument, raised by the package and not by a dependency."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """The body raises a ValueError from inside the package whose one line holds all parts."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the parts say which
        yield
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert message[-1] in ".?", message
    assert len(message) < 600, message
    assert "/lit_xai/" in str(caught.traceback[-1].path)

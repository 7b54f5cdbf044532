"""One vocabulary for when something happens: an integer counts epochs, a fraction is a share of ``max_epochs``."""


def resolve_epochs(value: int | float, max_epochs: int | None, argument: str) -> int:
    """Return a number of epochs.

    Args:
        value: an integer of at least 0, or a fraction of ``max_epochs`` between 0 and 1.
        max_epochs: the Trainer's; ``None`` or -1 for training without end.
        argument: what ``value`` was given for, named in the error.

    Raises:
        ValueError: the value is neither, or a fraction of an unknown number.

    Example:
        >>> resolve_epochs(5, 20, "every_n_epochs"), resolve_epochs(0.1, 20, "every_n_epochs")
        (5, 2)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{argument} expected a number of epochs, or a fraction of max_epochs, but got {value!r}.")
    if isinstance(value, int):
        return value
    if value > 1:
        raise ValueError(f"{argument} expected an integer, or a fraction from 0 to 1 of max_epochs, but got {value}.")
    if max_epochs is None or max_epochs < 0:
        raise ValueError(f"{argument}={value} is a fraction of max_epochs, which is not set: give a number of epochs.")
    return round(value * max_epochs)

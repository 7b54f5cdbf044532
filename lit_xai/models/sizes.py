"""What the models check of sizes: of their arguments, and of what comes in."""

from numbers import Integral

from torch import Tensor


def check_positive(**sizes: int) -> None:
    """Refuse a size that is not a positive integer, by its name.

    Args:
        sizes: arguments as the caller got them.

    Raises:
        ValueError: one of them is not a positive integer.

    Example:
        >>> check_positive(depth=20, width=0)
        Traceback (most recent call last):
        ValueError: width should be a positive integer, but got 0.
    """
    for name, size in sizes.items():
        if not isinstance(size, Integral) or size < 1:
            raise ValueError(f"{name} should be a positive integer, but got {size!r}.")


def check_probability(**probabilities: float) -> None:
    """Refuse a probability outside [0, 1), by its name.

    Args:
        probabilities: arguments as the caller got them.

    Raises:
        ValueError: one of them is negative, or 1 and more.

    Example:
        >>> check_probability(dropout=1.5)
        Traceback (most recent call last):
        ValueError: dropout should be in [0, 1), but got 1.5.
    """
    for name, probability in probabilities.items():
        if not 0 <= probability < 1:
            raise ValueError(f"{name} should be in [0, 1), but got {probability}.")


def check_images(inputs: Tensor, in_channels: int) -> None:
    """Refuse what is not a batch of images with this many channels.

    Args:
        inputs: what the network was called with.
        in_channels: channels of an image.

    Raises:
        ValueError: the input is not ``(batch, in_channels, height, width)``.

    Example:
        >>> import torch
        >>> check_images(torch.zeros(2, 1, 28, 28), in_channels=1)
    """
    if inputs.ndim != 4 or inputs.shape[1] != in_channels:
        raise ValueError(
            f"Expected images (batch, {in_channels}, height, width), but got an input of shape {tuple(inputs.shape)}:"
            " set in_channels to what the data has."
        )


def squeeze_column(values: Tensor) -> Tensor:
    """Return a column ``(batch, 1)`` as ``(batch,)``, and anything else as it is.

    Args:
        values: outputs of a network, or labels.

    Example:
        >>> import torch
        >>> squeeze_column(torch.zeros(1, 1)).shape, squeeze_column(torch.zeros(8, 3)).shape
        (torch.Size([1]), torch.Size([8, 3]))
    """
    return values.squeeze(-1) if values.ndim == 2 else values

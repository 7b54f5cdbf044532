"""Checks of sizes: of the models' arguments, and of their inputs."""

from torch import Tensor

from lit_xai.network.check import check_integer, is_number, refusal


def check_positive(**sizes: int) -> None:
    """Refuse a size that is not a positive integer, by its name.

    Args:
        sizes: arguments as the caller got them.

    Raises:
        ValueError: one of them is not a positive integer.

    Example:
        >>> check_positive(depth=20, width=0)
        Traceback (most recent call last):
        ValueError: width expected a positive integer, but got 0.
    """
    for name, size in sizes.items():
        check_integer(name, size)


def check_probability(**probabilities: float) -> None:
    """Refuse a probability outside [0, 1), by its name.

    Args:
        probabilities: arguments as the caller got them.

    Raises:
        ValueError: one of them is negative, or 1 and more.

    Example:
        >>> check_probability(dropout=1.5)
        Traceback (most recent call last):
        ValueError: dropout expected a number in [0, 1), but got 1.5.
    """
    for name, probability in probabilities.items():
        if not is_number(probability) or not 0 <= probability < 1:
            raise refusal(name, "a number in [0, 1)", probability)


def check_images(inputs: Tensor, in_channels: int) -> None:
    """Refuse anything but a batch of images with this many channels.

    Args:
        inputs: the network's inputs.
        in_channels: channels of an image.

    Raises:
        ValueError: the input is not ``(batch, in_channels, height, width)``.

    Example:
        >>> import torch
        >>> check_images(torch.zeros(2, 1, 28, 28), in_channels=1)
    """
    if inputs.ndim != 4 or inputs.shape[1] != in_channels:
        raise ValueError(
            f"inputs expected images (batch, {in_channels}, height, width), but got shape {tuple(inputs.shape)}: set"
            " in_channels to that of the data."
        )


def squeeze_column(values: Tensor) -> Tensor:
    """Return a column ``(batch, 1)`` as ``(batch,)``, and any other shape unchanged.

    Args:
        values: outputs of a network, or labels.

    Example:
        >>> import torch
        >>> squeeze_column(torch.zeros(1, 1)).shape, squeeze_column(torch.zeros(8, 3)).shape
        (torch.Size([1]), torch.Size([8, 3]))
    """
    return values.squeeze(-1) if values.ndim == 2 else values

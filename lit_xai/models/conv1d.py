"""The convolutional network for series."""

from torch import Tensor, nn

from lit_xai.models.sizes import check_positive


class ConvBlock1d(nn.Module):
    """A convolution over positions, batch normalization and ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: positions that a filter sees; odd, so that the length stays.
        stride: of the convolution.

    Example:
        >>> import torch
        >>> ConvBlock1d(12, 32, kernel_size=5)(torch.zeros(2, 12, 29)).shape
        torch.Size([2, 32, 29])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 5, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm1d(out_channels)
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(batch, out_channels, length / stride)``."""
        return self.relu(self.bn(self.conv(inputs)))


class ConvNet1d(nn.Module):
    """Convolutional network for series: blocks of convolution, batch normalization and ReLU, and a mean over positions.

    After `Wang, Yan and Oates 2017, Time Series Classification from Scratch with Deep Neural Networks
    <https://arxiv.org/abs/1611.06455>`_, whose network has kernels of 8, 5 and 3 and widths of 128, 256 and 128.
    Series may have any length. Its layers are ``blocks.0``, ``blocks.1`` ... with ``conv``, ``bn`` and ``relu`` each,
    ``pool``, ``flatten`` and ``fc``.

    Args:
        in_channels: channels of a series.
        width: channels of the first and the last block; those between have twice as many.
        depth: number of blocks.
        kernel_size: positions that a filter sees, an odd number.
        stride: of every block but the first, for long series.
        num_classes: classes, or numbers predicted.

    Raises:
        ValueError: a size is not a positive integer, ``kernel_size`` is even, or series with other channels come in.

    Example:
        >>> import torch
        >>> network = ConvNet1d(in_channels=12, num_classes=9)
        >>> network(torch.zeros(2, 12, 29)).shape, network(torch.zeros(2, 12, 100)).shape
        (torch.Size([2, 9]), torch.Size([2, 9]))
    """

    def __init__(
        self,
        in_channels: int = 1,
        width: int = 32,
        depth: int = 3,
        kernel_size: int = 5,
        stride: int = 1,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_positive(
            in_channels=in_channels,
            width=width,
            depth=depth,
            kernel_size=kernel_size,
            stride=stride,
            num_classes=num_classes,
        )
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size expected an odd number, so that filters have a middle, but got {kernel_size}."
            )
        self.in_channels = in_channels
        widths = [in_channels, *(width if i in (0, depth - 1) else 2 * width for i in range(depth))]
        self.blocks = nn.Sequential(
            *(ConvBlock1d(widths[i], widths[i + 1], kernel_size, stride if i else 1) for i in range(depth))
        )
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)`` from series ``(batch, in_channels, length)``."""
        if inputs.ndim != 3 or inputs.shape[1] != self.in_channels:
            raise ValueError(
                f"inputs expected series (batch, {self.in_channels}, length), but got shape {tuple(inputs.shape)}: set"
                " in_channels to that of the data."
            )
        return self.fc(self.flatten(self.pool(self.blocks(inputs))))

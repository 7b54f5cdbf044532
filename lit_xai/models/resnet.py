"""The residual network for small images."""

from torch import Tensor, nn

from lit_xai.models.sizes import check_images, check_positive


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the shortcut is a 1x1 convolution where the shape changes.

    He et al. pad the shortcut with zeros there (option A); a convolution (option B) is a layer of its own, which can be
    pruned, folded and hooked.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution.

    Example:
        >>> import torch
        >>> BasicBlock(16, 32, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        # One ReLU per use: explainers that hook ReLU (DeepLift, GuidedBackprop, LRP) refuse a module that runs twice.
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.relu2 = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return ``(batch, out_channels, height / stride, width / stride)``."""
        hidden = self.relu1(self.bn1(self.conv1(inputs)))
        return self.relu2(self.bn2(self.conv2(hidden)) + self.shortcut(inputs))


class ResNet(nn.Module):
    """CIFAR-style residual network: a stem and three stages of ``n`` blocks, ``6n + 2`` weighted layers deep.

    From `He et al. 2016, Deep Residual Learning for Image Recognition <https://arxiv.org/abs/1512.03385>`_, section 4.2
    (ResNet-20 and 56 have 0.27 and 0.85 million parameters), with convolutions where they pad the shortcut with zeros.

    Its layers, by the names that callbacks take: ``conv1``, ``bn1`` and ``relu1`` are the stem; ``layer1``, ``layer2``
    and ``layer3`` the stages, each of blocks ``layer1.0``, ``layer1.1``, ... of ``conv1``, ``bn1``, ``relu1``,
    ``conv2``, ``bn2``, ``shortcut`` and ``relu2``; then come ``pool``, ``flatten`` and ``fc``. The second and the third
    stage halve height and width. Inside ``Classifier(ResNet())`` they are ``network.layer1`` and so on.

    Args:
        depth: ``6n + 2``: 8, 14, 20, 32, 44, 56, 110.
        width: channels of the stem and the first stage; the stages have ``width``, ``2 * width`` and ``4 * width``.
        stem_stride: stride of the first convolution; 2 or more for larger images.
        in_channels: channels of the image.
        num_classes: classes, or numbers predicted.

    Raises:
        ValueError: ``depth`` is not ``6n + 2``, a size is not a positive integer, or images with other channels
            come in.

    Example:
        >>> import torch
        >>> network = ResNet(depth=20)
        >>> network(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in network.parameters())
        272474
    """

    def __init__(
        self,
        depth: int = 20,
        width: int = 16,
        stem_stride: int = 1,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        if blocks < 1 or depth != 6 * blocks + 2:
            below, above = 6 * max(blocks, 1) + 2, 6 * max(blocks + 1, 2) + 2
            raise ValueError(f"depth expected 6n + 2 (8, 14, 20, ...), but got {depth}: take {below} or {above}.")
        check_positive(width=width, stem_stride=stem_stride, in_channels=in_channels, num_classes=num_classes)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015, https://arxiv.org/abs/1502.01852, as in the paper of the network.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)`` from images ``(batch, in_channels, height, width)``."""
        check_images(inputs, self.conv1.in_channels)
        hidden = self.relu1(self.bn1(self.conv1(inputs)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        return self.fc(self.flatten(self.pool(hidden)))


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels) for _ in range(blocks - 1)))

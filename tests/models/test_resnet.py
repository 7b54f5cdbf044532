from itertools import pairwise

import pytest
import torch
from captum.attr import DeepLift
from torch import nn

from lit_xai.models import ResNet


def published(depth: int, width: int = 16, channels: int = 3, classes: int = 10) -> int:
    """Parameters with the zero-padded shortcuts of the paper, added up layer by layer."""
    n, widths = (depth - 2) // 6, (width, width, 2 * width, 4 * width)
    count = 9 * channels * width + 2 * width
    for before, now in pairwise(widths):
        count += 9 * before * now + (2 * n - 1) * 9 * now * now + 2 * n * 2 * now
    return count + (4 * width + 1) * classes


def projections(width: int = 16) -> int:
    return sum(before * 2 * before + 4 * before for before in (width, 2 * width))


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameters_are_those_of_the_paper_and_the_projections(depth, millions):
    assert published(depth) / 1e6 == pytest.approx(millions, abs=0.006 if depth < 110 else 0.05)
    assert sum(p.numel() for p in ResNet(depth).parameters()) == published(depth) + projections()


@pytest.mark.parametrize(("depth", "width", "channels", "classes"), [(8, 4, 1, 3), (14, 10, 4, 100)])
def test_parameters_follow_width_channels_and_classes(depth, width, channels, classes):
    network = ResNet(depth, width=width, in_channels=channels, num_classes=classes)
    count = sum(p.numel() for p in network.parameters())
    assert count == published(depth, width, channels, classes) + projections(width)


@pytest.mark.parametrize("depth", [8, 20])
def test_depth_counts_the_weighted_layers_outside_the_shortcuts(depth):
    layers = [n for n, m in ResNet(depth).named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len([name for name in layers if "shortcut" not in name]) == depth


@pytest.mark.parametrize(("stem_stride", "size"), [(1, 32), (2, 16), (4, 8)])
def test_the_stem_and_two_stages_shrink_the_image(stem_stride, size):
    network, sizes = ResNet(8, width=4, stem_stride=stem_stride), []
    for name in ("conv1", "layer1", "layer2", "layer3"):
        network.get_submodule(name).register_forward_hook(lambda *args: sizes.append(args[-1].shape[-1]))
    network(torch.zeros(1, 3, 32, 32))
    assert sizes == [size, size, size // 2, size // 4]


def test_every_relu_runs_once():
    network, runs = ResNet(14, width=4), []
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda module, *_: runs.append(id(module)))
    network(torch.zeros(1, 3, 16, 16))
    assert len(runs) == len(set(runs)) == 1 + 2 * 6


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes on non-linear")  # Captum, always
def test_deeplift_adds_up():
    torch.manual_seed(0)
    network = ResNet(8, width=4).double().eval()
    inputs, baselines = torch.randn(2, 2, 3, 8, 8, dtype=torch.double, requires_grad=True)
    target = torch.tensor([1, 3])
    _, delta = DeepLift(network).attribute(inputs, baselines, target=target, return_convergence_delta=True)
    assert delta.abs().max() < 1e-9


@pytest.mark.parametrize(("depth", "nearest"), [(18, "14 or 20"), (21, "20 or 26"), (2, "8 or 14"), (-4, "8 or 14")])
def test_depth_is_six_n_plus_two(depth, nearest):
    with pytest.raises(ValueError, match=rf"depth expected 6n \+ 2 .* but got {depth}: take {nearest}\."):
        ResNet(depth)


def test_sizes_and_channels_are_checked():
    with pytest.raises(ValueError, match="width expected a positive integer, but got 0"):
        ResNet(8, width=0)
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\), but got shape \(2, 1, 8, 8\)"):
        ResNet(8)(torch.zeros(2, 1, 8, 8))

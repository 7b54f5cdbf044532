"""A pattern that is planted in one channel of a noisy series decides its class: every explainer has to find it."""

import pytest
import torch
import torch.nn.functional as F

from lit_xai.functional import attribute
from lit_xai.models import ConvNet1d

CHANNELS, LENGTH, SPAN = 3, 64, 8
PATTERN = 3 * torch.sin(torch.linspace(0, 4 * torch.pi, SPAN))


def planted(n, seed):
    """Return noise with the pattern, either way up, at a random place; its classes, channels and beginnings."""
    draw = torch.Generator().manual_seed(seed)
    x = 0.5 * torch.randn(n, CHANNELS, LENGTH, generator=draw)
    y = torch.randint(2, (n,), generator=draw)
    channel = torch.randint(CHANNELS, (n,), generator=draw)
    begin = torch.randint(LENGTH - SPAN, (n,), generator=draw)
    for i in range(n):
        x[i, channel[i], begin[i] : begin[i] + SPAN] += PATTERN * (2 * y[i] - 1)
    return x, y, channel, begin


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = ConvNet1d(in_channels=CHANNELS, width=16, num_classes=2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for step in range(150):
        x, y, *_ = planted(64, step)
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


WINDOW = {"sliding_window_shapes": (1, 8), "strides": (1, 4)}
CELLS = torch.arange(CHANNELS * LENGTH // 4).repeat_interleave(4).reshape(1, CHANNELS, LENGTH)
EXPLAINERS = {
    "IntegratedGradients": {"n_steps": 16},
    "InputXGradient": {},
    "DeepLift": {},
    "GradientShap": {"n_samples": 16},
    "Occlusion": WINDOW,
    "FeatureAblation": {"feature_mask": CELLS},
    "ShapleyValueSampling": {"feature_mask": CELLS, "n_samples": 5},
    "LayerGradCam": {},
}


@pytest.mark.parametrize("method", EXPLAINERS)
def test_the_planted_span_is_where_the_map_is_largest_in_95_of_100(network, method):
    x, y, channel, begin = planted(100, seed=10_000)
    assert (network(x).argmax(1) == y).float().mean() >= 0.98
    options = {"layer": "blocks.2"} if method.startswith("Layer") else {}
    if method == "GradientShap":
        options["baselines"] = torch.zeros(1, CHANNELS, LENGTH)
    found = attribute(network, x, method=method, target=y, attribute_args=EXPLAINERS[method], **options).detach()
    # Summed over a window of the span's length, in which single values of a wave cancel.
    mass = F.avg_pool1d(found, SPAN, stride=1, padding=SPAN // 2)
    place = mass.flatten(1).argmax(1)
    hit = (place % mass.shape[-1] - (begin + SPAN // 2)).abs() <= SPAN // 2
    if len(found[0]) == CHANNELS:  # Grad-CAM's map is one for all channels
        hit &= place // mass.shape[-1] == channel
    assert hit.sum() >= 95

"""A word that is planted in a text decides its class: every explainer has to find it."""

import pytest
import torch
import torch.nn.functional as F

from lit_xai.functional import attribute
from lit_xai.models import TextTransformer

WORDS, FIRST, LENGTH = 60, 5, 16
PLANTED = torch.tensor([FIRST, FIRST + 1])


def planted(n, seed):
    """Return texts of 6 to 16 words, one of which decides, their classes, and its places."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(FIRST + 2, WORDS, (n, LENGTH), generator=draw)
    lengths = torch.randint(6, LENGTH + 1, (n,), generator=draw)
    classes = torch.randint(2, (n,), generator=draw)
    places = (torch.rand(n, generator=draw) * lengths).long()
    ids[torch.arange(n), places] = PLANTED[classes]
    mask = torch.arange(LENGTH) < lengths[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}, classes, places


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = TextTransformer(vocab_size=WORDS, max_length=LENGTH, dim=16, depth=1, heads=2, dropout=0.1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for step in range(120):
        inputs, classes, _ = planted(64, step)
        optimizer.zero_grad()
        F.cross_entropy(network(**inputs), classes).backward()
        optimizer.step()
    return network.eval()


# Compared with padding. LayerGradientXActivation compares with nothing, and finds 43 of 100: where a word has settled
# the class, its gradient is small.
EXPLAINERS = {
    "LayerIntegratedGradients": {"n_steps": 16},
    "LayerDeepLift": {},
    "Occlusion": {"sliding_window_shapes": (1,)},
    "FeatureAblation": {},
    "ShapleyValueSampling": {"n_samples": 5},
    "KernelShap": {"n_samples": 60},
    "Lime": {"n_samples": 60},
}


@pytest.mark.filterwarnings("ignore:LayerDeepLift")  # GELU and attention are passed as gradients, and it says so
@pytest.mark.parametrize("method", EXPLAINERS)
def test_the_planted_word_counts_most_in_95_of_100(network, method):
    inputs, classes, places = planted(100, seed=10_000)
    assert (network(**inputs).argmax(1) == classes).float().mean() >= 0.98
    options = {"layer": "words"} if method.startswith("Layer") else {}
    args = EXPLAINERS[method]
    found = attribute(network, inputs, method=method, target=classes, baselines=0, attribute_args=args, **options)
    maps = next(iter(found.values())) if isinstance(found, dict) else found
    maps = maps.detach().float()
    maps = maps.sum(-1) if maps.dim() == 3 else maps
    assert (maps.argmax(1) == places).sum() >= 95

"""What each callback would do with a network."""

import pytest
import torch
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.overview import sections


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    )


X = torch.randn(2, 1, 8, 8)
WANTED = {
    "sizes": r"0\.\d+ k parameters|\d+ parameters, .* MACs for one sample; logits Tensor\[2, 3\] float32\.",
    "pruning": r"1 layer in 1 group can lose channels, down to \d+\.\d% of the parameters and \d+\.\d% of the MACs\.",
    "quantization": r"2 layers compute in integers .* 1 BatchNorm that the exported file folds",
    "distillation": r"called with Tensor\[2, 1, 8, 8\] float32, and answers with \(samples, 3\)",
    "export": r"an ONNX file of .*B\.",
    "costs": r"forward and backward .* ms for 8 samples; .* quantized \d+\.\d\d times\.",
}


@pytest.mark.parametrize("name", WANTED)
def test_each_says_what_it_found_and_changes_nothing(name):
    found = network()
    before = digest([module_state(found), rng_state()])
    import re

    assert re.search(WANTED[name], getattr(sections, name)(found, X, None))
    assert digest([module_state(found), rng_state()]) == before


def test_what_is_explained():
    text = sections.attribution(network(), X, torch.tensor([0, 1]), None)
    assert text.startswith("IntegratedGradients of input [1, 8, 8]; ")


def test_tokens_are_explained_at_their_embedding():
    found = nn.Sequential(nn.Embedding(9, 4, padding_idx=1), nn.Flatten(), nn.Linear(20, 3))
    text = sections.attribution(found, torch.randint(9, (2, 5)), torch.tensor([0, 1]), None)
    assert text.startswith("LayerIntegratedGradients of input [5, 4] at the embedding '0'; ")


def test_layers_that_stay_whole_are_named():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 16, 3), nn.Conv2d(4, 16, 3), nn.Conv2d(16, 3, 1)

        def forward(self, x):
            return self.c(self.b(nn.functional.pixel_shuffle(self.a(x), 2)).relu()).mean((2, 3))

    assert "Stay whole: a" in sections.pruning(Shuffled(), X, None)

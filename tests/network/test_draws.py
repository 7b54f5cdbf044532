"""Random numbers at their means: two calls agree, and so does what is exported."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from lit_xai.export.parity import OnnxPredictor, network_predictor
from lit_xai.network.draws import MeanDraws
from lit_xai.network.profiling import count_samples
from lit_xai.runtime.onnx import export_onnx

MEAN = torch.tensor([1.0, -2.0])
DRAWS = {
    "randn": (lambda: MEAN + torch.randn(2), MEAN),
    "randn_like": (lambda: MEAN + torch.randn_like(MEAN), MEAN),
    "rand": (lambda: torch.rand(2), torch.full((2,), 0.5)),
    "rsample": (lambda: Normal(MEAN, 3.0).rsample(), MEAN),
    "normal": (lambda: torch.normal(MEAN, torch.ones(2)), MEAN),
    "normal_": (lambda: torch.empty(2).normal_(4.0, 2.0), torch.full((2,), 4.0)),
    "uniform_": (lambda: torch.empty(2).uniform_(2.0, 6.0), torch.full((2,), 4.0)),
    "exponential_": (lambda: torch.empty(2).exponential_(4.0), torch.full((2,), 0.25)),
    "bernoulli": (lambda: torch.bernoulli(torch.tensor([0.25, 0.75])), torch.tensor([0.25, 0.75])),
    "dropout": (lambda: nn.functional.dropout(MEAN, 0.5, training=True), MEAN),
}


@pytest.mark.parametrize("name", DRAWS)
def test_means(name):
    draw, mean = DRAWS[name]
    with MeanDraws() as draws:
        torch.testing.assert_close(draw(), mean)
    assert draws.drawn
    # An independent witness: the mean of many draws.
    many = torch.stack([draw() for _ in range(4000)]).mean(0)
    torch.testing.assert_close(many, mean, rtol=0.1, atol=0.2)


def test_nothing_drawn():
    with MeanDraws() as draws:
        nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval()(MEAN)
    assert not draws.drawn


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 6), nn.Linear(3, 4)

    def forward(self, x):
        mean, scale = self.encoder(x).chunk(2, -1)
        return self.decoder(Normal(mean, scale.exp(), validate_args=True).rsample())


def test_a_variational_autoencoder_has_samples_and_a_file(tmp_path):
    network, x = Autoencoder().eval(), torch.randn(5, 4)
    assert not torch.equal(network(x), network(x))
    assert count_samples(network, {"x": x}) == 5
    export_onnx(network, x[:1], tmp_path / "model.onnx")
    expected = network.decoder(network.encoder(x)[:, :3])
    torch.testing.assert_close(OnnxPredictor(tmp_path / "model.onnx")(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network_predictor(network)(x), expected)

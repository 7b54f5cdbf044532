"""The neural additive model: it is additive, learns planted functions, and stays one when it is compressed."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lit_xai import StructuredPruning
from lit_xai.data import Table, TableDataModule
from lit_xai.functional import quantize
from lit_xai.models import Classifier, NeuralAdditiveModel, Regressor, shape_functions


def quiet_trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**{"accelerator": "cpu", "enable_checkpointing": False, **quiet, **options})


PLANTED = (lambda x: torch.sin(2 * x), lambda x: x**2 / 2, torch.abs, torch.zeros_like)


def planted(n=2000):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, len(PLANTED), generator=generator) * 4 - 2
    return x, sum(function(x[:, k]) for k, function in enumerate(PLANTED)).unsqueeze(1)


@pytest.fixture(scope="module")
def trained():
    x, y = planted()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NeuralAdditiveModel(4, hidden=[32, 32])
        optimizer = torch.optim.Adam(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=400)
        for _ in range(400):
            rows = torch.randint(len(x), (256,))
            optimizer.zero_grad()
            nn.functional.mse_loss(network(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return network


def test_learned_shape_functions_are_the_planted_ones(trained):
    x, _ = planted()
    found = shape_functions(trained, x)
    for k, function in enumerate(PLANTED):
        expected = function(found.grid[k]) - function(x[:, k]).mean()
        # 5% of the function's own range; of the one that is zero, of the others'.
        limit = 0.05 * float(expected.max() - expected.min() or 2.0)
        assert float((found.contributions[k, :, 0] - expected).abs().max()) < limit


def test_each_features_network_is_the_one_that_a_loop_would_run():
    torch.manual_seed(0)
    network, x = NeuralAdditiveModel(3, 2, hidden=[5, 4]), torch.randn(7, 3)
    first, second, last = (layer for layer in network.features if isinstance(layer, nn.Conv1d))
    for k in range(3):
        hidden = x[:, [k]]
        for layer, width, before in ((first, 5, 1), (second, 4, 5), (last, 2, 4)):
            weight = layer.weight.reshape(3, width, before)[k]
            hidden = hidden @ weight.T + layer.bias.reshape(3, width)[k]
            hidden = hidden if layer is last else hidden.relu()
        torch.testing.assert_close(network.contributions(x)[:, k], hidden)


@pytest.mark.parametrize(("hidden", "dropout"), [([8], 0.0), ([8, 4], 0.3), ([], 0.0)])
def test_a_feature_adds_the_same_whatever_the_others_are(hidden, dropout):
    torch.manual_seed(0)
    network = NeuralAdditiveModel(4, 3, hidden, dropout).eval()
    x, other = torch.randn(2, 6, 4).unbind()
    mixed = torch.cat([x[:, :2], other[:, 2:]], 1)
    ours, others = network.contributions(x), network.contributions(other)
    torch.testing.assert_close(network(mixed), ours[:, :2].sum(1) + others[:, 2:].sum(1) + network.bias)


def test_curves_have_mean_zero_over_the_data_and_leave_the_mode(trained):
    x, _ = planted(500)
    trained.train()
    found = shape_functions(trained, x, points=2)
    assert trained.training
    trained.eval()
    torch.testing.assert_close(found.grid, torch.stack([x.amin(0), x.amax(0)], 1))
    ends = trained.contributions(torch.stack([x.amin(0), x.amax(0)])) - trained.contributions(x).mean(0)
    torch.testing.assert_close(found.contributions, ends.transpose(0, 1).detach())


def test_pruned_it_stays_additive():
    torch.manual_seed(0)
    x, y = planted(200)
    network = NeuralAdditiveModel(4, 1, hidden=[64, 32])
    before = sum(p.numel() for p in network.parameters())
    pruning = StructuredPruning(target_macs=0.5, report_latency=False, start_epoch=0)
    quiet_trainer(max_epochs=2, callbacks=[pruning]).fit(
        Regressor(network), datamodule=TableDataModule.from_table(Table(x, y[:, 0]))
    )
    assert sum(p.numel() for p in network.parameters()) < 0.6 * before
    other = x.roll(1, 0)
    ours, others = network.contributions(x), network.contributions(other)
    mixed = torch.cat([x[:, :1], other[:, 1:]], 1)
    torch.testing.assert_close(network(mixed), ours[:, :1].sum(1) + others[:, 1:].sum(1) + network.bias)
    assert shape_functions(network, x).contributions.shape == (4, 64, 1)


def test_quantized_it_computes_about_the_same(trained):
    x, y = planted(256)
    quantized = quantize(trained, [(x, y)])
    assert type(quantized) is NeuralAdditiveModel
    with torch.no_grad():
        assert float((quantized(x) - trained(x)).abs().max()) < 0.1 * float(trained(x).std())


@pytest.mark.parametrize("task", ["classes", "values"])
def test_it_trains_in_either_module(task):
    x, y = planted(200)
    labels = (y[:, 0] > 1).long() if task == "classes" else y[:, 0]
    module = (
        Classifier(NeuralAdditiveModel(4, 2, [8]), num_classes=2)
        if task == "classes"
        else Regressor(NeuralAdditiveModel(4, 1, [8]))
    )
    quiet_trainer(max_epochs=1).fit(module, datamodule=TableDataModule.from_table(Table(x, labels)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NeuralAdditiveModel(0), "in_features expected a positive integer"),
        (lambda: NeuralAdditiveModel(3, hidden=[0]), "hidden expected a positive integer"),
        (lambda: NeuralAdditiveModel(3, dropout=1.0), r"dropout expected a number in \[0, 1\)"),
        (lambda: NeuralAdditiveModel(3)(torch.zeros(2, 5)), "inputs expected in_features=3 values per sample"),
        (
            lambda: shape_functions(nn.Linear(3, 1), torch.zeros(2, 3)),
            "network expected a NeuralAdditiveModel",
        ),
        (
            lambda: shape_functions(NeuralAdditiveModel(3), torch.zeros(2, 3), 1),
            "points expected an integer",
        ),
    ],
)
def test_refuses_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""WeightConstraint in a run, against a plain loop."""

import copy

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import StructuredPruning, WeightConstraint
from lit_xai.functional import count_macs, count_parameters
from lit_xai.models import MLP
from lit_xai.runtime.onnx import export_onnx

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
QUIET |= {"accelerator": "cpu"}


class Plain(LightningModule):
    def __init__(self, network, lr=0.1):
        super().__init__()
        self.network, self.lr = network, lr

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MLP(12, [8, 6], 3)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 12, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0)), batch_size=16)


def train(network, data, constraint, **options):
    Trainer(max_epochs=2, callbacks=[constraint], **QUIET, **options).fit(Plain(network), data)
    return network


def by_hand(network, data, change):
    """The loop that a beginner writes: a step, then every parameter is cut."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    change(network)
    for _ in range(2):
        for x, y in data:
            optimizer.zero_grad()
            cross_entropy(network(x), y).backward()
            optimizer.step()
            change(network)
    return network


def divide(network):
    for param in network.parameters():
        param.data = param.data / param.data.norm()


def clip(network):
    for param in network.parameters():
        param.data = param.data.clamp(-0.1, 0.1)


CASES = [(divide, {"unit_norm": True, "per": "tensor"}), (clip, {"clamp": 0.1})]


@pytest.mark.parametrize(("change", "options"), CASES, ids=["param / norm", "clamp"])
def test_it_is_the_loop_and_makes_nothing_smaller(network, data, change, options, tmp_path):
    witness = by_hand(copy.deepcopy(network), data, change)
    dense = copy.deepcopy(network)
    train(network, data, WeightConstraint(parameters=["*"], **options))
    for (name, weight), other in zip(network.named_parameters(), witness.parameters(), strict=True):
        torch.testing.assert_close(weight, other, msg=name)
    x = torch.zeros(1, 12)
    assert count_macs(network, x) == count_macs(dense, x)
    assert count_parameters(network) == count_parameters(dense)
    sizes = []
    for name, one in (("dense", dense), ("cut", network)):
        export_onnx(one, x, tmp_path / f"{name}.onnx")
        sizes.append((tmp_path / f"{name}.onnx").stat().st_size)
    assert sizes[0] == sizes[1]


def test_biases_are_left_alone_by_default(network, data):
    train(network, data, WeightConstraint(clamp=0.01))
    for name, parameter in network.named_parameters():
        assert (parameter.abs().max() <= 0.01) == name.endswith("weight"), name


def test_a_pruned_network_is_kept_within_limits_too(network, data, tmp_path):
    pruning = StructuredPruning(pruning_ratio=0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    callbacks = [pruning, WeightConstraint(clamp=(-0.05, 0.2), module="network")]
    Trainer(max_epochs=2, callbacks=callbacks, default_root_dir=tmp_path, **QUIET).fit(Plain(network), data)
    weights = [p for p in network.parameters() if p.dim() > 1]
    assert weights[0].shape == (4, 12)
    assert all(weight.min() >= -0.05 and weight.max() <= 0.2 for weight in weights)


def test_it_holds_with_gradients_that_are_accumulated(network, data):
    train(network, data, WeightConstraint(unit_norm=True), accumulate_grad_batches=3)
    for weight in (p for p in network.parameters() if p.dim() > 1):
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "expected one of clamp, max_norm and unit_norm, but got none"),
        ({"clamp": 1, "max_norm": 1}, "but got clamp and max_norm"),
        ({"max_norm": 0}, "max_norm expected a positive number"),
        ({"max_norm": True}, "max_norm expected a positive number"),
        ({"clamp": -1}, "clamp expected a positive number"),
        ({"unit_norm": True, "per": "row"}, "per expected"),
        ({"unit_norm": True, "parameters": "weight"}, "parameters expected a list of names"),
    ],
)
def test_wrong_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        WeightConstraint(**options)


def test_a_name_that_is_no_parameter_is_refused_before_the_first_step(network, data):
    with pytest.raises((ValueError, MisconfigurationException), match=r"'\*.wieght' matches no parameter"):
        train(network, data, WeightConstraint(unit_norm=True, parameters=["*.wieght"]))


def test_a_module_is_looked_up_by_its_name(data):
    body = nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 3))
    WeightConstraint(clamp=0.01, module="1").apply_(body)
    assert body[1].weight.abs().max() <= 0.01 < body[0].weight.abs().max()

"""An importance of one's own: one short file, given by its import path, with every right that the library's have."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from refusals import refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lit_xai
from lit_xai.network.copying import copy_network
from lit_xai.pruning.importance import needs_data, prepare_importance, resolve_importance
from lit_xai.pruning.input_importance import InputImportance
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import prunable_layers, prune_step, pruned_copy
from lit_xai.structure.recipe import recipe_of

ON_THE_BASE = '''
"""Rank channels by their mean absolute activation."""

import torch

from lit_xai.pruning.input_importance import InputImportance, layer_inputs, sum_positions


class MeanActivation(InputImportance):
    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = power

    def collect(self, network, inputs, run):
        with layer_inputs(network) as read, torch.no_grad():
            for batch in inputs:
                run(batch)
        self.measured = {
            layer: torch.cat([sum_positions(layer, tensor.abs() ** self.power) for tensor in tensors])
            for layer, tensors in read.items()
        }
        return self
'''

BY_PROTOCOL = '''
"""The same without the library: any importance of Torch-Pruning with a method ``collect``."""

import torch
import torch_pruning


class MeanActivation(torch_pruning.importance.Importance):
    def __init__(self, power=1.0):
        self.power, self.read = power, {}

    def collect(self, network, inputs, run):
        def keep(layer, args):
            self.read.setdefault(layer, []).append(args[0].detach().abs() ** self.power)

        layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
        handles = [layer.register_forward_pre_hook(keep) for layer in layers]
        for batch in inputs:
            run(batch)
        for handle in handles:
            handle.remove()

    def __call__(self, group):
        for dep, indices in group:
            if dep.handler == torch_pruning.prune_linear_in_channels and dep.target.module in self.read:
                return torch.cat(self.read[dep.target.module]).mean(0)[indices]
        return None
'''


@pytest.fixture(params=[ON_THE_BASE, BY_PROTOCOL], ids=["on the base", "by protocol"])
def source(request, tmp_path, monkeypatch):
    """A contributor's file, importable as ``my_importance``."""
    (tmp_path / "my_importance.py").write_text(request.param)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_importance", raising=False)
    return request.param


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def images():
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def fit(module, folder, **options):
    trainer = Trainer(
        max_epochs=2,
        callbacks=[lit_xai.StructuredPruning(0.5, start_epoch=0, end_epoch=0, report_latency=False, **options)],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(TensorDataset(images(), torch.arange(64) % 10), batch_size=16))


def test_one_short_file_without_private_imports_prunes_by_import_path(source, tmp_path):
    assert len(source.strip().splitlines()) <= 60
    assert not re.search(r"(import|from) .*\b_\w|\._[a-z]", source)
    module = Module()
    activation = module.network[:3](images()).abs().square().mean(0)
    fit(
        module,
        tmp_path,
        importance="my_importance.MeanActivation",
        importance_args={"power": 2.0},
        importance_samples=64,
        round_to=1,
    )
    kept = {(name, dim): indices for name, dim, _, indices in recipe_of(module).steps[0]["kept"]}
    assert kept["network.1.weight", 0] == kept["network.3.weight", 1] == sorted(activation.topk(8).indices.tolist())


def test_what_collects_is_shown_data_whatever_it_is_called(source):
    importance = resolve_importance("my_importance.MeanActivation")
    assert needs_data(importance)
    with refused("MeanActivation expected samples"):
        prepare_importance(importance, nn.Linear(2, 2))


class Unsure(InputImportance):
    """Looks at the data and finds nothing."""

    def collect(self, network, inputs, run):
        return self


def test_nothing_to_remove_names_the_importance_that_gave_no_ranking(tmp_path):
    with pytest.warns(UserWarning, match="will remove nothing") as caught:
        fit(Module(), tmp_path, importance=Unsure)
    [message] = [str(one.message) for one in caught if "will remove nothing" in str(one.message)]
    assert "importance=Unsure returned None" in message
    assert "the channels of network.1." in message
    assert "round_to" not in message


def test_widths_that_fit_no_layer_are_still_named(tmp_path):
    with pytest.warns(UserWarning, match="no layer can give up channels at round_to=32"):
        fit(Module(), tmp_path, round_to=32)


class Short(InputImportance):
    def collect(self, network, inputs, run):
        return self

    def __call__(self, group):
        return torch.ones(3)


class Failing(Short):
    def __call__(self, group):
        raise KeyError("no such layer")


@pytest.mark.parametrize(
    ("cls", "parts"),
    [
        (Short, ("importance=Short expected to return a tensor of shape (16,)", "['1']", "but got shape (3,)")),
        (Failing, ("importance=Failing failed on the channels of ['1']", "KeyError", "no such layer")),
    ],
)
def test_what_is_wrong_with_an_importance_is_not_blamed_on_the_network(cls, parts):
    with refused(*parts):
        prune_step(Module().network, images()[:1], importance=cls())


@pytest.mark.parametrize(
    "name", ["AttributionImportance", "GroupTaylorImportance", "GroupHessianImportance", "ActivationImportance"]
)
def test_an_importance_prepared_on_a_network_ranks_its_copies(name):
    network, batches = Module().network, [(images(), torch.arange(64) % 10)]
    importance = prepare_importance(resolve_importance(name), network, batches)
    ranked = Prunable(network, images()[:1], pruning_ratio=0.5, importance=importance)
    expected = ranked.step(ranked.due())
    assert expected["kept"]
    before = copy.deepcopy(network.state_dict())
    network = Module().network
    importance = prepare_importance(resolve_importance(name), network, batches)
    for _ in range(2):  # the first leaves it as it is
        assert prune_step(network, images()[:1], pruning_ratio=0.5, importance=importance) == expected
    assert pruned_copy(network, images()[:1], pruning_ratio=0.5, importance=importance)[1].out_features == 8
    assert prunable_layers(network, images()[:1], importance=importance) == [["1"]]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_an_importance_without_data_is_warned_of():
    network = Module().network
    with pytest.warns(UserWarning, match="importance=AttributionImportance returned None.*Show it data") as caught:
        step = prune_step(network, images()[:1], importance=resolve_importance("AttributionImportance"))
    assert len(caught) == 1
    assert step["kept"] == []
    assert copy_network(network)[1].out_features == 16

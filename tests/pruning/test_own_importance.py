"""An importance of one's own: one short file, given by its import path, with every right that the library's have."""

import copy
import math
import re

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from refusals import refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lit_xai
from lit_xai.network.copying import copy_network
from lit_xai.pruning.importance import needs_data, prepare_importance, resolve_importance
from lit_xai.pruning.input_importance import InputImportance, sum_positions
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
    options = {"start_epoch": 0, "end_epoch": 0, **options}
    trainer = Trainer(
        max_epochs=2,
        callbacks=[lit_xai.StructuredPruning(0.5, report_latency=False, **options)],
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
    assert "self.measured" in message
    assert "round_to" not in message


def test_widths_that_fit_no_layer_are_still_named(tmp_path):
    with pytest.warns(UserWarning, match="no layer can give up channels at round_to=32") as caught:
        fit(Module(), tmp_path, round_to=32)
    [message] = [str(one.message) for one in caught if "will remove nothing" in str(one.message)]
    assert message.endswith("Take a smaller round_to than 32 or a larger pruning_ratio; round_to=1 allows any width.")


class Short(InputImportance):
    def collect(self, network, inputs, run):
        return self

    def __call__(self, group):
        return torch.ones(3)


class Failing(Short):
    def __call__(self, group):
        raise KeyError("no such layer")


class Measured(InputImportance):
    """Holds whatever it is given for every layer."""

    def __init__(self, values, score=None):
        super().__init__()
        self.values, self.scores = values, score

    def collect(self, network, inputs, run):
        self.measured = {layer: self.values for layer in network if getattr(layer, "in_features", 0) == 16}
        return self

    def score(self, values):
        return values.mean(0) if self.scores is None else self.scores


class Unbuilt(Measured):
    """Has a constructor that leaves out its base's."""

    def __init__(self):
        self.values, self.scores = torch.ones(2, 16), None


class UnbuiltMagnitude(torch_pruning.importance.GroupMagnitudeImportance):
    def __init__(self):
        self.mine = 1


class Misspelled(Short):
    def __call__(self, group):
        return self.scroes


NAN = torch.tensor([math.nan, *range(15)])


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (Short, ("importance=Short expected to return a tensor of shape (16,)", "['1']", "but got shape (3,)")),
        (Failing, ("importance=Failing failed on the channels of ['1']", "KeyError", "no such layer")),
        (
            lambda: Measured(torch.ones(16)),
            ("importance=Measured expected self.measured of a Linear", "of shape (n, 16), but got shape (16,)."),
        ),
        (
            lambda: Measured(torch.ones(2, 10)),
            ("importance=Measured expected self.measured of a Linear", "of shape (n, 16), but got shape (2, 10)."),
        ),
        (lambda: Measured([1.0]), ("of shape (n, 16), but got [1.0].",)),
        (
            lambda: Measured(torch.ones(2, 16), torch.tensor(3.0)),
            (
                "importance=Measured expected score to return a tensor of shape (16,)",
                "values of shape (2, 16), but got shape ().",
            ),
        ),
        (lambda: Measured(torch.ones(2, 16), 3.0), ("of shape (16,)", "but got 3.0.")),
        (
            lambda: Measured(torch.ones(2, 16), NAN),
            ("importance=Measured expected", "a number for each channel of ['1']", "but got nan for 1 of 16"),
        ),
        (Unbuilt, ("importance=Unbuilt failed on", "'group_reduction'", "call super().__init__()?")),
        (UnbuiltMagnitude, ("importance=UnbuiltMagnitude failed on", "call super().__init__()?")),
        (Misspelled, ("importance=Misspelled failed on", "'scroes'", ").")),
    ],
)
def test_what_is_wrong_with_an_importance_is_not_blamed_on_the_network(make, parts):
    network, importance = Module().network, make()
    if hasattr(importance, "collect"):
        importance.collect(network, [images()], network)
    with refused(*parts):
        prune_step(network, images()[:1], importance=importance)


class Variance(Measured):
    def score(self, values):
        return values.var(0, correction=len(values))  # 0 / 0


def test_nan_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"importance=Variance expected .* but got nan for 16 of 16"):
        fit(InSequence(), tmp_path, importance=Variance(torch.ones(1, 16)))


@pytest.mark.parametrize("normalizer", ["mean", "sum", "max"])
def test_a_group_of_zeros_is_no_fault_of_the_importance(normalizer):
    """A dead layer's scores are 0 / 0 after normalization, and rank below any other."""
    importance, network = Measured(torch.zeros(2, 16)), Module().network
    importance.normalizer = normalizer
    step = prune_step(network, images()[:1], importance=importance.collect(network, [], network))
    assert [len(indices) for name, dim, _, indices in step["kept"] if (name, dim) == ("1.weight", 0)] == [8]


@pytest.mark.parametrize("normalizer", [None, "mean"])
def test_nan_is_refused_behind_a_normalizer_and_of_torch_pruning_s_own(normalizer):
    network = Module().network
    with torch.no_grad():
        network[1].weight[3] = math.nan
    importance = torch_pruning.importance.GroupMagnitudeImportance(normalizer=normalizer)
    with refused("importance=GroupMagnitudeImportance expected", "but got nan"):
        prune_step(network, images()[:1], importance=importance)


class InSequence(Module):
    """The module itself is what is pruned, and yields its layers."""

    def __iter__(self):
        return iter(self.network)


class Counting(Measured):
    """Counts its calls: the list is the class's, so that it outlives the instances."""

    calls = []  # shared on purpose

    def collect(self, network, inputs, run):
        assert isinstance(inputs, list)
        assert torch.is_grad_enabled()
        assert not network.training
        self.calls.append((self, network))
        assert [len(run(batch)) for _ in range(2) for batch in inputs] == [32, 32]
        self.measured = {network.network[3]: self.values[:, : network.network[3].in_features]}
        return self


@pytest.mark.parametrize("is_instance", [False, True])
@pytest.mark.parametrize("n_cuts", [1, 2])
def test_collect_is_called_in_the_rehearsal_and_before_each_cut(is_instance, n_cuts, tmp_path, monkeypatch):
    monkeypatch.setattr(Counting, "calls", [])
    args = {"values": torch.arange(16.0).flip(0)[None]}
    given = {"importance": Counting(**args)} if is_instance else {"importance": Counting, "importance_args": args}
    module = Module()
    fit(module, tmp_path, **given, importance_samples=32, round_to=1, end_epoch=n_cuts - 1, every_n_epochs=1)
    assert len(Counting.calls) == 1 + n_cuts
    # A class is built again for each call, an instance is the same; the network is another copy each time.
    assert len({id(importance) for importance, _ in Counting.calls}) == (1 if is_instance else 1 + n_cuts)
    assert len({id(network) for _, network in Counting.calls}) == 1 + n_cuts
    assert module.network[1].out_features == 8


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        x = self.first(x)
        return self.a(x) + self.b(x)


class Listing(InputImportance):
    def collect(self, network, inputs, run):
        self.measured = {network.a: torch.tensor([[1.0, 2.0, 3.0]]), network.b: torch.tensor([[4.0, 0.0, 0.0]])}
        self.seen = []
        return self

    def score(self, values):
        self.seen.append(values.tolist())
        return values.mean(0)


def test_score_sees_one_layer_at_a_time():
    network = TwoReaders()
    importance = Listing().collect(network, [], network)
    graph = torch_pruning.DependencyGraph().build_dependency(network, torch.ones(1, 4))
    group = graph.get_pruning_group(network.first, torch_pruning.prune_linear_out_channels, [0, 1, 2])
    assert importance(group).tolist() == [2.5, 1.0, 1.5]  # the mean over both
    assert sorted(importance.seen) == [[[1.0, 2.0, 3.0]], [[4.0, 0.0, 0.0]]]


def test_positions_in_the_dimension_of_samples_are_summed_by_sample():
    values = torch.arange(2 * 3 * 4 * 5 * 5.0).reshape(2, 3, 4, 5, 5)  # samples, frames, channels, height, width
    expected = values.sum((1, 3, 4))
    assert torch.equal(sum_positions(nn.Conv2d(4, 1, 1), values.flatten(0, 1), 2), expected)
    tokens = values.permute(0, 1, 3, 4, 2).reshape(-1, 4)
    assert torch.equal(sum_positions(nn.Linear(4, 1), tokens, 2), expected)


class Without(InputImportance):
    """Lacks a method ``collect``."""


def test_what_is_missing_from_a_class_or_a_name_is_in_the_message():
    with refused("importance=Without has to define collect."):
        resolve_importance(Without)
    with refused("'MeanAbsInput' is not in torch_pruning.importance.", "'package.module.MeanAbsInput'"):
        resolve_importance("MeanAbsInput")


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

"""Runs whose module holds a second network that follows the weights of the one that is pruned or quantized."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lit_xai
from lit_xai import QuantizationAwareTraining, StructuredPruning
from lit_xai.structure.recipe import recipe_of


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    )


class Agent(LightningModule):
    """A deep Q-network: the target is loaded with the weights of the network every so many steps."""

    def __init__(self, every=3, until=10**9):
        super().__init__()
        self.save_hyperparameters()
        self.net, self.target = network(0), network(1)
        self.steps = 0

    def forward(self, x):
        return self.net(x)

    def follow(self):
        if self.steps % self.hparams.every == 0 and self.steps < self.hparams.until:
            self.target.load_state_dict(self.net.state_dict())

    def training_step(self, batch, batch_idx):
        self.follow()
        self.steps += 1
        with torch.no_grad():
            goal = self.target(batch[0]).softmax(1)
        logits = self(batch[0])
        return F.cross_entropy(logits, batch[1]) + 0.1 * F.mse_loss(logits.softmax(1), goal)

    def configure_optimizers(self):
        return torch.optim.Adam(self.net.parameters(), 0.01)


class Momentum(Agent):
    """An average of the network's weights that starts as its copy."""

    def __init__(self):
        super().__init__()
        self.target = copy.deepcopy(self.net).requires_grad_(False)

    def follow(self):
        for mean, value in zip(self.target.parameters(), self.net.parameters(), strict=True):
            mean.data.mul_(0.9).add_(value.data, alpha=0.1)


class Taught(Momentum):
    """A frozen teacher of the network's architecture, of its weights even."""

    def follow(self):
        pass


class Latents(LightningModule):
    """BYOL: a predictor of what averages of the parts before it give; every parameter is given to the optimizer."""

    def __init__(self, in_place=True, freezes=True, after_step=False):
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 12))
        self.predictor = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))
        self.body_mean, self.target = copy.deepcopy(self.body), copy.deepcopy(self.head)
        if freezes:
            self.body_mean.requires_grad_(False), self.target.requires_grad_(False)

    def forward(self, x):
        return self.predictor(self.head(self.body(x)))

    @torch.no_grad()
    def follow(self):
        for model, average in ((self.body, self.body_mean), (self.head, self.target)):
            for value, mean in zip(model.parameters(), average.parameters(), strict=True):
                if self.hparams.in_place:
                    mean.lerp_(value, 0.1)
                else:
                    mean.data = 0.9 * mean.data + 0.1 * value.data

    def training_step(self, batch, batch_idx):
        if not self.hparams.after_step:
            self.follow()
        goal = self.target(self.body_mean(batch[0] + 0.1)).detach()
        return -F.cosine_similarity(self(batch[0]), goal).mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.hparams.after_step:
            self.follow()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)

    @property
    def net(self):
        return self.head


def fit(folder, module, *callbacks, ckpt_path=None, epochs=4):
    seed_everything(0, verbose=False)
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(x, x[:, :4].argmax(1)), batch_size=8)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_epochs=epochs, callbacks=list(callbacks), default_root_dir=folder, enable_checkpointing=False, **quiet
    )
    trainer.fit(module, data, ckpt_path=ckpt_path)
    trainer.save_checkpoint(folder / "end.ckpt")
    return trainer


def pruning(**options):
    # The network is named: the step calls two of them.
    options = {"start_epoch": 1, "end_epoch": 2, "every_n_epochs": 1, "report_latency": False, **options}
    return StructuredPruning(0.5, module="net", round_to=1, **options)


def shapes(part):
    return {name: tuple(value.shape) for name, value in part.state_dict().items()}


def check_loads(folder, module):
    loaded = lit_xai.load_from_checkpoint(type(module), folder / "end.ckpt")
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert not {"load_state_dict", "__reduce_ex__"} & {*vars(module.target), *vars(module.net)}


@pytest.mark.parametrize("every", [1, 3, 12], ids=["each step", "before the cut", "after both cuts"])
def test_a_target_network_is_cut_in_step(tmp_path, every):
    module = Agent(every)
    fit(tmp_path, module, pruning())
    assert module.net[0].out_features == 8
    assert shapes(module.target) == shapes(module.net)
    check_loads(tmp_path, module)


def test_a_target_network_keeps_the_channels_of_its_model(tmp_path):
    """The target, loaded once before the first cut, is the network of that moment without the channels that went."""
    module, first = Agent(until=1), Agent()
    fit(tmp_path, module, pruning())
    kept = {(name, dim): indices for name, dim, _, indices in recipe_of(module).steps[0]["kept"]}
    again = {(name, dim): indices for name, dim, _, indices in recipe_of(module).steps[1]["kept"]}
    expected = first.net[0].weight[kept["net.0.weight", 0]][again["net.0.weight", 0]]
    assert torch.equal(module.target[0].weight, expected)


def test_an_average_is_cut_in_step(tmp_path):
    module = Momentum()
    fit(tmp_path, module, pruning())
    assert shapes(module.target) == shapes(module.net)
    check_loads(tmp_path, module)
    # Resumed from the end: what follows is known from the recipe.
    again = Momentum()
    fit(tmp_path, again, pruning(end_epoch=5), ckpt_path=tmp_path / "end.ckpt", epochs=7)
    assert shapes(again.target) == shapes(again.net)


@pytest.mark.parametrize(
    "options",
    [{}, {"in_place": False}, {"freezes": False}, {"after_step": True}],
    ids=["in place", "by data", "with gradients", "after the step"],
)
def test_averages_of_parts_are_cut_before_the_first_step(tmp_path, options):
    """What the averages give is compared with what the predictor gives, and keeps its width."""
    module = Latents(**options)
    fit(tmp_path, module, StructuredPruning(0.5, start_epoch=0, end_epoch=1, round_to=1, report_latency=False))
    assert [module.head[0].out_features, module.head[2].out_features, module.predictor[0].out_features] == [8, 12, 8]
    assert shapes(module.target) == shapes(module.head)
    assert shapes(module.body_mean) == shapes(module.body)
    check_loads(tmp_path, module)


def test_a_target_network_that_an_optimizer_is_given_too_is_cut_in_step(tmp_path):
    module = Agent(every=3)
    module.configure_optimizers = lambda: torch.optim.Adam(module.parameters(), 0.01)
    fit(tmp_path, module, pruning())
    assert shapes(module.target) == shapes(module.net)
    check_loads(tmp_path, module)


def test_a_frozen_teacher_stays_whole(tmp_path):
    module = Taught()
    before = copy.deepcopy(module.target.state_dict())
    fit(tmp_path, module, pruning())
    assert module.net[0].out_features == 8
    after = module.target.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items() if name.endswith(("weight", "bias")))
    check_loads(tmp_path, module)


def test_a_cut_before_the_first_step_says_what_it_leaves_whole(tmp_path):
    with pytest.warns(UserWarning, match="cuts 'net' before the first step and leaves 'target' whole"):
        fit(tmp_path, Taught(), pruning(start_epoch=0, end_epoch=0))


@pytest.mark.parametrize("prunes", [False, True])
def test_a_target_network_of_a_quantized_one_stays_in_float(tmp_path, prunes):
    module = Agent(every=1)
    callbacks = [QuantizationAwareTraining(2, module="net", calibration_batches=1, freeze_epoch=3)]
    fit(tmp_path, module, *callbacks, *([pruning(end_epoch=1)] if prunes else []))
    assert hasattr(module.net, "fake_quantizers")
    assert not hasattr(module.target, "fake_quantizers")
    assert module.target[0].out_features == module.net[0].out_features == (8 if prunes else 16)
    check_loads(tmp_path, module)

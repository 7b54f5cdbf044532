"""Structure recorded, replayed, carried by checkpoints of a real Trainer, and nothing left on the module."""

import copy
import pickle
import subprocess
import sys

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import load_from_checkpoint
from lit_xai.models import MLP, ResNet, VisionTransformer
from lit_xai.pruning.pruning import prune_step
from lit_xai.structure.attachment import attach, detach, take_step_
from lit_xai.structure.kinds import apply_step_, undo_step_
from lit_xai.structure.recipe import KEY, Recipe, recipe_of

NETWORKS = {
    "mlp": (lambda: MLP(64, (24, 16), 10), (1, 8, 8)),
    "resnet": (lambda: ResNet(8, width=8, in_channels=1), (1, 8, 8)),
    "vit": (lambda: VisionTransformer(8, 2, 1, 10, dim=16, depth=2, heads=2), (1, 8, 8)),
}


def made(name, seed=0):
    torch.manual_seed(seed)
    make, shape = NETWORKS[name]
    return make(), torch.randn(4, *shape)


def selected(value, kept):
    for dim, indices in kept:
        value = value.index_select(dim, torch.tensor(indices))
    return value


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
@pytest.mark.parametrize("name", NETWORKS)
def test_kept_channels_and_their_moments_are_the_old_ones(name, optimizer):
    network, x = made(name)
    optimizer = optimizer(network.parameters())
    network(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    network(x).square().sum().backward()  # a cut may fall between two batches whose gradients are added up
    gradients = {n: p.grad.clone() for n, p in network.named_parameters()}
    values = {n: v.clone() for n, v in [*network.named_parameters(), *network.named_buffers()]}
    moments = {n: copy.deepcopy(optimizer.state[p]) for n, p in network.named_parameters()}
    step = prune_step(network, x, pruning_ratio=0.5)
    take_step_(network, step, [optimizer])
    kept = {}
    for tensor, dim, _, indices in step["kept"]:
        kept.setdefault(tensor, []).append((dim, indices))
    assert kept
    for n, value in [*network.named_parameters(), *network.named_buffers()]:
        assert torch.equal(value, selected(values[n], kept.get(n, []))), n
    for n, parameter in network.named_parameters():
        assert torch.equal(parameter.grad, selected(gradients[n], kept.get(n, []))), n
        for key, moment in optimizer.state[parameter].items():
            old = moments[n][key]
            expected = selected(old, kept.get(n, [])) if old.shape == values[n].shape else old
            assert torch.equal(moment, expected), (n, key)
    live = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, live)) == sorted(map(id, network.parameters()))
    network(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", NETWORKS)
def test_any_structure_from_any_other(name):
    network, x = made(name)
    shapes = [{n: p.shape for n, p in network.state_dict().items()}]
    recipes = [Recipe()]
    for ratio in (0.5, 0.5) if name == "vit" else (0.3, 0.4):  # the heads have to divide what is left
        take_step_(network, prune_step(network, x, pruning_ratio=ratio))
        recipes.append(Recipe(recipe_of(network).steps))
        shapes.append({n: p.shape for n, p in network.state_dict().items()})
    now = recipes[-1]
    for place in (0, 2, 1, 2, 0, 1):
        recipes[place].replay_(network, since=now)
        now = recipes[place]
        assert {n: p.shape for n, p in network.state_dict().items()} == shapes[place]
        assert network.eval()(x).shape == (4, 10)


def test_two_branches_meet_at_the_common_step():
    network, x = made("mlp")
    common = prune_step(network, x, pruning_ratio=0.25)
    take_step_(network, common)
    left = prune_step(network, x, pruning_ratio=0.5)
    other = copy.deepcopy(network)
    right = prune_step(other, -x, pruning_ratio=0.3)
    take_step_(network, left)
    Recipe([common, right]).replay_(network, since=recipe_of(network))
    apply_step_(other, right)
    assert [p.shape for p in network.parameters()] == [p.shape for p in other.parameters()]


def test_what_was_kept_survives_going_back():
    network, x = made("resnet")
    before = {n: v.clone() for n, v in network.state_dict().items()}
    step = prune_step(network, x)
    apply_step_(network, step)
    pruned = {n: v.clone() for n, v in network.state_dict().items()}
    undo_step_(network, step)
    for n, value in network.state_dict().items():
        assert value.shape == before[n].shape
        assert torch.all((value == before[n]) | (value == 0))
    apply_step_(network, step)
    assert all(torch.equal(value, pruned[n]) for n, value in network.state_dict().items())


def test_frozen_stays_frozen_and_shared_stays_shared():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
            self.again = self.first

        def forward(self, x):
            return self.last(self.again(x).relu())

    network = Twice()
    network.first.requires_grad_(False)
    apply_step_(network, prune_step(network, torch.zeros(1, 4)))
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]
    assert network.again.weight is network.first.weight
    assert network.first.weight.shape == (4, 4)


@pytest.mark.parametrize("edit", ["name", "size", "module"])
def test_a_recipe_of_another_network_is_refused_and_changes_nothing(edit):
    network, x = made("mlp")
    good, bad = prune_step(network, x, pruning_ratio=0.25), copy.deepcopy(prune_step(network, x))
    if edit == "name":
        bad["kept"][0][0] = "layers.9.weight"
    elif edit == "size":
        bad["kept"][-1][2] = 99
    else:
        bad["attributes"][0][0] = "layers.9"
        bad["kept"] = []
    before = {n: v.clone() for n, v in network.state_dict().items()}
    with pytest.raises(ValueError, match="The recipe does not fit MLP"):
        Recipe([good, bad]).replay_(network)
    assert all(before[n].shape == v.shape for n, v in network.state_dict().items())


def test_unknown_versions_and_steps_are_refused_by_name():
    with pytest.raises(ValueError, match="expected version 1, but got 7"):
        Recipe.from_dict({"version": 7, "steps": []})
    with pytest.raises(ValueError, match="but got 'grow'"):
        Recipe.from_dict({"version": 1, "steps": [{"kind": "grow"}]})


# --- with a Trainer ---------------------------------------------------------------------------------------------------


def module_class(package):
    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)

        def forward(self, x):
            return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

        test_step = validation_step

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    return Module


def pruning_callback(package):
    class Prune(package.Callback):
        """The least that a compression callback does: attach, take steps, detach."""

        def setup(self, trainer, pl_module, stage):
            attach(pl_module, self)

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch in (1, 2):
                take_step_(
                    pl_module, prune_step(pl_module, torch.zeros(1, 1, 8, 8), pruning_ratio=0.25), trainer.optimizers
                )

        def teardown(self, trainer, pl_module, stage):
            detach(pl_module, self)

        def on_exception(self, trainer, pl_module, exception):
            detach(pl_module, self)

    return Prune()


def data():
    torch.manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(32, 1, 8, 8), torch.arange(32) % 10), batch_size=8)


def trainer_of(package, folder, **options):
    checkpoint = package.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_last=True, monitor="val/loss")
    return package.Trainer(
        callbacks=[pruning_callback(package), checkpoint],
        **({"max_epochs": 4, "logger": False, "accelerator": "cpu", "default_root_dir": folder} | options),
        enable_progress_bar=False,
        enable_model_summary=False,
    )


PACKAGES = pytest.mark.parametrize("package", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pl"])


@PACKAGES
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_every_checkpoint_of_a_pruned_run_loads_again(package, tmp_path):
    trainer, module = trainer_of(package, tmp_path), module_class(package)()
    trainer.fit(module, data(), data())
    assert module.conv.out_channels == 4  # 8, 6, 4
    assert not set(vars(module)) & {"on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__"}
    expected = {}
    for name, width in {"epoch=0": 8, "epoch=1": 6, "epoch=2": 4, "last": 4}.items():
        path = tmp_path / f"{name}.ckpt"
        assert torch.load(path, weights_only=True)["state_dict"]["conv.weight"].shape[0] == width
        expected[name] = trainer.test(module, data(), ckpt_path=path, verbose=False)[0]["val/loss"]
        assert module.conv.out_channels == width
        loaded = load_from_checkpoint(type(module), path)
        assert loaded.conv.out_channels == width
        fresh = package.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
        assert fresh.test(loaded, data(), verbose=False)[0]["val/loss"] == pytest.approx(expected[name], abs=1e-6)
    for word in ("best", "last"):
        trainer.test(module, data(), ckpt_path=word, verbose=False)
    # Fit again from an earlier, wider one.
    trainer_of(package, tmp_path / "again", max_epochs=2).fit(
        module, data(), data(), ckpt_path=tmp_path / "epoch=0.ckpt"
    )
    assert module.conv.out_channels == 6


def test_recipe_is_in_weights_only_checkpoints(tmp_path):
    trainer, module = trainer_of(lightning.pytorch, tmp_path), module_class(lightning.pytorch)()
    trainer.callbacks[-1].save_weights_only = True
    trainer.fit(module, data(), data())
    assert len(torch.load(tmp_path / "last.ckpt", weights_only=True)[KEY]["steps"]) == 2
    assert load_from_checkpoint(type(module), tmp_path / "last.ckpt").conv.out_channels == 4


def test_nothing_stays_after_an_exception(tmp_path):
    module = module_class(lightning.pytorch)()

    class Stop(lightning.pytorch.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise RuntimeError("stop")

    trainer = trainer_of(lightning.pytorch, tmp_path)
    trainer.callbacks.append(Stop())
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(module, data(), data())
    assert not set(vars(module)) & {"on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__"}


def test_attachment_counts_and_is_absent_from_copies():
    module = module_class(lightning.pytorch)()
    attach(module, "first")
    attach(module, "second")
    assert "on_load_checkpoint" not in vars(copy.deepcopy(module))
    assert "on_load_checkpoint" in vars(module)
    detach(module, "first")
    assert "on_load_checkpoint" in vars(module)
    detach(module, "first")
    assert "on_load_checkpoint" in vars(module)
    detach(module, "second")
    detach(module, "second")
    assert not set(vars(module)) & {"on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__"}


def test_attached_modules_can_be_pickled():
    from lit_xai.models import Classifier

    module = Classifier(MLP(4, (3,), 2), num_classes=2)
    attach(module, "test")
    again = pickle.loads(pickle.dumps(module))
    assert "on_load_checkpoint" not in vars(again)
    detach(module, "test")


def test_somebody_elses_wrapper_comes_back():
    module = module_class(lightning.pytorch)()
    called = []
    module.on_load_checkpoint = theirs = lambda checkpoint: called.append(checkpoint)
    attach(module, "test")
    module.on_load_checkpoint({})
    assert called == [{}]
    detach(module, "test")
    assert module.on_load_checkpoint is theirs


def test_another_process_needs_the_class_alone(tmp_path):
    module_code = """
import torch, torch.nn.functional as F
from torch import nn
from lightning.pytorch import LightningModule
class Mine(LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.a, self.b = nn.Linear(4, width), nn.Linear(width, 3)
    def forward(self, x):
        return self.b(F.relu(self.a(x)))
"""
    (tmp_path / "mine.py").write_text(module_code)
    save = """
import torch, mine
from lightning.pytorch import Trainer
from lit_xai.pruning.pruning import prune_step
from lit_xai.recipe import attach, take_step_
module = mine.Mine(width=12)
attach(module, "test")
take_step_(module, prune_step(module, torch.zeros(1, 4)))
trainer = Trainer(logger=False, accelerator="cpu")
trainer.strategy.connect(module)
trainer.save_checkpoint("mine.ckpt")
torch.save(module(torch.ones(2, 4)), "expected.pt")
"""
    load = """
import torch, mine, lit_xai
module = lit_xai.load_from_checkpoint(mine.Mine, "mine.ckpt")
assert module.a.out_features == 6
assert torch.equal(module(torch.ones(2, 4)), torch.load("expected.pt"))
"""
    for code in (save, load):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]

"""Pruning in a real Trainer: what is reached, what every checkpoint holds, and that training goes on."""

import copy
import math
import re
import warnings
from functools import partial
from pathlib import Path

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_pruning.utils import count_ops_and_params
from witness import Witness

import lit_xai
from lit_xai import load_from_checkpoint
from lit_xai.data import Digits
from lit_xai.models import MLP, Classifier, ResNet
from lit_xai.network.layers import channels
from lit_xai.runtime.latency import Latency
from lit_xai.structure.recipe import recipe_of

# Exporting and measuring takes seconds: test_report does it.
StructuredPruning = partial(lit_xai.StructuredPruning, report_latency=False)
ATTACHED = {"on_load_checkpoint", "on_save_checkpoint", "__reduce_ex__"}


def resnet(width=16):
    return ResNet(8, width=width, in_channels=1)


class Module(LightningModule):
    """Somebody's module: nothing of the library in it."""

    def __init__(self, network=None):
        super().__init__()
        self.network = resnet() if network is None else network

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def images(n=64, shape=(1, 8, 8)):
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(n, *shape, generator=generator), torch.arange(n) % 10), batch_size=16)


def fit(module, folder, *callbacks, loader=None, ckpt_path=None, **options):
    seed_everything(1, verbose=False)
    options = {"max_epochs": 4, "logger": False, "accelerator": "cpu", "devices": 1, **options}
    trainer = Trainer(
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **options,
    )
    trainer.fit(module, loader or images(), None if loader else images(16), ckpt_path=ckpt_path)
    return trainer


class Sizes(Callback):
    """Notes the width of every layer at each epoch's end."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append(channels(pl_module))
        live = [p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]]
        assert sorted(map(id, live)) == sorted(map(id, pl_module.parameters()))
        for optimizer in trainer.optimizers:
            assert all(
                value.shape == p.shape
                for p, state in optimizer.state.items()
                for value in state.values()
                if isinstance(value, torch.Tensor) and value.dim()
            )


# --- what is reached --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_macs_agree_with_an_independent_counter(share, tmp_path):
    module, sizes = Module(), Sizes()
    dense = count_ops_and_params(copy.deepcopy(module.network), torch.zeros(1, 1, 8, 8))[0]
    fit(module, tmp_path, StructuredPruning(target_macs=share, round_to=1, start_epoch=1, end_epoch=2), sizes)
    left = count_ops_and_params(copy.deepcopy(module.network), torch.zeros(1, 1, 8, 8))[0]
    assert left == pytest.approx(share * dense, rel=0.03)  # the counter adds batch norm and pooling
    assert sizes.seen[0] == channels(Module())  # nothing before epoch 1
    assert sizes.seen[1] != sizes.seen[0]
    assert sizes.seen[2] == sizes.seen[3] != sizes.seen[1]


@pytest.mark.parametrize(
    ("target", "expected"), [({"target_params": 0.3}, 0.3), ({"target_params": 20_000}, 20_000 / 78_042)]
)
def test_parameters(target, expected, tmp_path):
    module = Module()
    dense = sum(p.numel() for p in module.network.parameters())
    fit(module, tmp_path, StructuredPruning(**target, round_to=1))
    left = sum(p.numel() for p in module.network.parameters())
    expected = expected if isinstance(target["target_params"], float) else 20_000 / dense
    assert left == pytest.approx(expected * dense, rel=0.02)


class Shuffled(nn.Module):
    """The channels of ``up`` become pixels, by their places."""

    def __init__(self):
        super().__init__()
        self.stem, self.up, self.shuffle = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 1), nn.PixelShuffle(2)
        self.tail, self.fc = nn.Conv2d(8, 16, 3), nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.tail(self.shuffle(self.up(self.stem(x).relu()))).relu().mean((2, 3)))


KEPT_WHOLE = "StructuredPruning keeps layers whole that cannot lose channels: network.up "
PARTLY = {"target_macs": 0.5, "round_to": 1, "start_epoch": 1, "end_epoch": 2, "every_n_epochs": 1}


def test_what_cannot_be_cut_stays_whole_is_listed_once_and_training_continues(tmp_path):
    module = Module(Shuffled())
    dense = count_ops_and_params(copy.deepcopy(module.network), torch.zeros(1, 1, 8, 8))[0]
    with pytest.warns(UserWarning, match=KEPT_WHOLE) as warned:
        fit(module, tmp_path, StructuredPruning(**PARTLY), ModelCheckpoint(tmp_path, save_last=True))
    messages = [str(one.message) for one in warned if "keeps layers whole" in str(one.message)]
    assert len(messages) == 1
    assert "MACs" in messages[0]
    assert "are the least within reach" in messages[0]
    assert channels(module.network)["up"] == 32
    assert len(recipe_of(module).steps) == 2
    left = count_ops_and_params(copy.deepcopy(module.network), torch.zeros(1, 1, 8, 8))[0]
    assert left == pytest.approx(0.5 * dense, rel=0.05)
    assert "| network.up | " in (tmp_path / "compression" / "summary.md").read_text()
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert [kept[0] for state in saved["callbacks"].values() for kept in state.get("kept_whole", [])] == [
        ["network.up"]
    ]


class StopAfter(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == self.epoch


@pytest.mark.filterwarnings("ignore:StructuredPruning keeps layers whole", "ignore:Checkpoint directory")
def test_a_resumed_run_keeps_the_same_layers_and_ends_in_the_same_weights(tmp_path):
    whole, first, resumed = Module(Shuffled()), Module(Shuffled()), Module(Shuffled())
    for other in (first, resumed):
        other.load_state_dict(whole.state_dict())
    fit(whole, tmp_path / "whole", StructuredPruning(**PARTLY))
    stop, saving = StopAfter(1), ModelCheckpoint(tmp_path / "run", save_last=True)
    with pytest.warns(UserWarning, match=r"did not make 1 of its 2 cuts: the run ended before epoch 2\."):
        fit(first, tmp_path / "run", StructuredPruning(**PARTLY), saving, stop)
    resuming = ModelCheckpoint(tmp_path / "run", save_last=True)
    fit(resumed, tmp_path / "run", StructuredPruning(**PARTLY), resuming, ckpt_path=tmp_path / "run" / "last.ckpt")
    assert len(recipe_of(resumed).steps) == 2
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())


def test_a_target_that_the_rest_cannot_meet_is_refused_with_what_is_within_reach(tmp_path):
    with pytest.raises(lightning.pytorch.utilities.exceptions.MisconfigurationException) as caught:
        fit(Module(Shuffled()), tmp_path, StructuredPruning(target_macs=0.01, round_to=1))
    message = str(caught.value)
    assert "is out of reach: the lowest possible value is" in message
    assert "These layers stay whole: network.up (" in message


def macs_of(network):
    return count_ops_and_params(copy.deepcopy(network), torch.zeros(1, 1, 8, 8))[0]


@pytest.mark.filterwarnings("ignore:StructuredPruning keeps layers whole")
def test_without_a_target_half_of_the_macs_stay(tmp_path):
    module = Module()
    dense = macs_of(module.network)
    fit(module, tmp_path, StructuredPruning(report_latency=False))
    assert macs_of(module.network) == pytest.approx(0.5 * dense, rel=0.1)  # its own count has the norms in it


class Coarse(Module):
    """Cuts of eight channels are a quarter of its MACs each."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)))


def test_a_last_cut_for_which_no_width_is_left_says_so(tmp_path):
    cuts = StructuredPruning(
        target_macs=0.7, start_epoch=0, end_epoch=2, every_n_epochs=1, round_to=8, report_latency=False
    )
    reached = r"1\.8 k MACs \(75%\), the nearest to 1\.7 k MACs \(70%\)"
    with pytest.warns(UserWarning, match=f"epoch 2: nothing is cut, and .*{reached}"):
        fit(Coarse(), tmp_path, cuts, max_epochs=3)


class Coarsely(lit_xai.StructuredPruning):
    """Plans in multiples of eight, in which the last cut has nowhere to go."""

    def _choose_widths(self, trainer, pl_module):
        every, self._round_to = self._round_to, (8,)
        decision = super()._choose_widths(trainer, pl_module)
        self._round_to = every
        return decision


def test_a_last_cut_that_would_miss_the_target_takes_smaller_multiples(tmp_path):
    module = Coarse()
    dense = macs_of(module.network)
    cuts = Coarsely(target_macs=0.65, start_epoch=0, end_epoch=2, every_n_epochs=1, report_latency=False)
    fit(module, tmp_path, cuts, max_epochs=3)
    assert macs_of(module.network) == pytest.approx(0.65 * dense, rel=0.05)


SHORT = {"start_epoch": 1, "end_epoch": 2, "every_n_epochs": 1, "report_latency": False}


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_without_a_target_as_much_goes_as_can_and_is_said_before_the_first_step(tmp_path):
    options = {**SHORT, "ignored_layers": "network.tail"}
    whole, first, resumed = Module(Shuffled()), Module(Shuffled()), Module(Shuffled())
    for other in (first, resumed):
        other.load_state_dict(whole.state_dict())
    dense = macs_of(whole.network)
    with pytest.warns(
        UserWarning, match=r"will leave .*\(8\d%\), the fewest within reach\..* whole: .*up \("
    ) as warned:
        fit(whole, tmp_path, StructuredPruning(**options))
    assert sum("StructuredPruning" in str(one.message) for one in warned) == 1
    assert channels(whole.network)["stem"] == 1
    assert 0.8 < macs_of(whole.network) / dense < 0.9
    with pytest.warns(UserWarning, match="the fewest within reach|did not make 1 of its 2 cuts"):
        fit(first, tmp_path, StructuredPruning(**options), ModelCheckpoint(tmp_path, save_last=True), StopAfter(1))
    saving = ModelCheckpoint(tmp_path, save_last=True)
    fit(resumed, tmp_path, StructuredPruning(**options), saving, ckpt_path=tmp_path / "last.ckpt")
    assert channels(resumed.network) == channels(whole.network)


def test_without_a_target_a_run_in_which_hardly_anything_can_go_is_refused(tmp_path):
    small = [nn.Conv2d(1, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4), nn.Linear(4, 10)]
    with pytest.raises(lightning.pytorch.utilities.exceptions.MisconfigurationException, match="out of reach"):
        fit(Module(nn.Sequential(*small)), tmp_path, StructuredPruning(ignored_layers="network.0"))


class Rows(nn.Module):
    """An image as the sequence of its rows."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.lstm(x.flatten(1, 2))[0][:, -1])


def test_a_refused_target_names_the_recurrent_layers(tmp_path):
    with pytest.raises(lightning.pytorch.utilities.exceptions.MisconfigurationException) as caught:
        fit(Module(Rows()), tmp_path, StructuredPruning())
    message = "These layers stay whole: lstm (recurrent layers keep their width); head (the output comes from it)."
    assert message in str(caught.value).replace("network.", "")


def test_latency_by_any_measure(tmp_path):
    """The measure counts the file's bytes: what is reached can be checked without a clock."""
    module = Module()
    measured = []

    def measure(path):
        measured.append(Path(path).suffix)
        return Path(path).stat().st_size / 1e6

    fit(
        module, tmp_path, StructuredPruning(target_latency=0.5, round_to=1, measure=measure, start_epoch=1, end_epoch=1)
    )
    assert set(measured) == {".onnx"}
    assert sum(p.numel() for p in module.network.parameters()) < 0.6 * sum(p.numel() for p in resnet().parameters())


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_latency_in_another_runtime(tmp_path, monkeypatch, caplog):
    asked = []

    def network_latency(network, inputs, **options):
        asked.append((options["runtime"], options["threads"], options["batch_size"]))
        return Latency(sum(p.numel() for p in network.parameters()) / 1e4, 0.0, "a runtime", "a CPU", 1, 1)

    monkeypatch.setattr("lit_xai.pruning.decision.network_latency", network_latency)  # the clock, which no test can set
    options = {"target_latency": 0.5, "round_to": 1, "runtime": "openvino", "threads": 2, "batch_size": 4}
    options |= {"start_epoch": 0, "end_epoch": 1, "every_n_epochs": 1}
    whole, first, resumed = Module(), Module(), Module()
    for other in (first, resumed):
        other.load_state_dict(whole.state_dict())
    with caplog.at_level("INFO"):
        fit(whole, tmp_path, StructuredPruning(**options))
    assert set(asked) == {("openvino", 2, 4)}
    said = "Latency is measured in OpenVINO 2026.4.1, floats in float32, 2 threads, batch 4."
    assert any(re.sub(r"OpenVINO [\d.]+", "OpenVINO 2026.4.1", text).endswith(said) for text in caplog.messages)
    assert sum(p.numel() for p in whole.network.parameters()) < 0.6 * sum(p.numel() for p in resnet().parameters())
    with pytest.warns(UserWarning, match="did not make 1 of its 2 cuts"):
        fit(first, tmp_path, StructuredPruning(**options), ModelCheckpoint(tmp_path, save_last=True), StopAfter(0))
    saving = ModelCheckpoint(tmp_path, save_last=True)
    fit(resumed, tmp_path, StructuredPruning(**options), saving, ckpt_path=tmp_path / "last.ckpt")
    assert channels(resumed.network) == channels(whole.network)


def test_runtimes_are_checked():
    with pytest.raises(ValueError, match=r"runtime expected one of .*, but got 'openvno'. Did you mean 'openvino'"):
        StructuredPruning(target_latency=0.5, runtime="openvno")
    with pytest.raises(ValueError, match="runtime expected its default beside measure"):
        StructuredPruning(target_latency=0.5, runtime="openvino", measure="os.path.getsize")


def test_widths_suit_the_runtime_by_default(tmp_path):
    module = Module()
    fit(module, tmp_path, StructuredPruning(0.5))
    assert all(width % 8 == 0 for name, width in channels(module.network).items() if name != "fc")
    assert channels(module.network)["conv1"] == 8


@pytest.mark.parametrize(("share", "round_to"), [(0.5, 16), (0.25, 8), (0.1, 4)])
def test_targets_take_the_largest_width_that_meets_them(share, round_to, tmp_path):
    module = Module(ResNet(8, width=32, in_channels=1) if share == 0.5 else resnet())
    dense = count_ops_and_params(copy.deepcopy(module.network), torch.zeros(1, 1, 8, 8))[0]
    fit(module, tmp_path, StructuredPruning(target_macs=share, start_epoch=1, end_epoch=1), max_epochs=2)
    widths = [width for name, width in channels(module.network).items() if name != "fc"]
    assert all(width % 4 == 0 for width in widths)
    assert any(width % (2 * round_to) for width in widths)
    left = count_ops_and_params(copy.deepcopy(module.network), torch.zeros(1, 1, 8, 8))[0]
    assert left == pytest.approx(share * dense, rel=0.06)


def test_nothing_to_remove_changes_nothing(tmp_path):
    seen = []
    for callbacks in ([], [StructuredPruning(0.0)]):
        witness = Witness()
        seed_everything(0, verbose=False)
        fit(Module(), tmp_path, *callbacks, witness, max_epochs=3)
        seen.append(witness.seen())
    for epoch in seen[0]["epochs"] + seen[1]["epochs"]:
        del epoch["attributes"]  # while it runs, the module's checkpoint methods are replaced
    assert seen[0] == seen[1]


@pytest.mark.parametrize("importance", ["GroupTaylorImportance", "GroupHessianImportance", "AttributionImportance"])
def test_looking_at_data_changes_nothing(importance, tmp_path):
    """The last cut comes after what the witness compares: what is left is looking, in the rehearsal."""
    seen = []
    for callbacks in ([], [StructuredPruning(0.5, start_epoch=2, importance=importance, importance_samples=16)]):
        witness = Witness()
        seed_everything(0, verbose=False)
        fit(Module(), tmp_path, *callbacks, witness, max_epochs=3)
        seen.append(witness.seen())
    assert seen[0]["losses"][:8] == seen[1]["losses"][:8]
    assert seen[0]["losses"] != seen[1]["losses"]
    for plain, watched in zip(seen[0]["epochs"][:2], seen[1]["epochs"][:2], strict=True):
        assert {k: v for k, v in plain.items() if k != "attributes"} == {
            k: v for k, v in watched.items() if k != "attributes"
        }


# --- checkpoints ------------------------------------------------------------------------------------------------------


def evaluated(module, checkpoint, folder):
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, callbacks=[StructuredPruning(0.5)])
    return trainer.test(module, images(16), ckpt_path=checkpoint, verbose=False)[0]["val/loss"]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_every_checkpoint_loads_again(tmp_path):
    module = Module()
    best = ModelCheckpoint(tmp_path, "{epoch}", monitor="val/loss", save_top_k=-1, save_last=True)
    trainer = fit(module, tmp_path, StructuredPruning(0.5, start_epoch=1, end_epoch=2), best)
    widths = {}
    for path in sorted(tmp_path.glob("*.ckpt")):
        loss = evaluated(Module(), path, tmp_path)
        widths[path.stem] = torch.load(path, weights_only=True)["state_dict"]["network.layer3.0.conv1.weight"].shape[0]
        loaded = load_from_checkpoint(Module, path)
        assert channels(loaded)["network.layer3.0.conv1"] == widths[path.stem]
        assert evaluated(loaded, None, tmp_path) == pytest.approx(loss, abs=1e-6)
        assert trainer.test(module, images(16), ckpt_path=path, verbose=False)[0]["val/loss"] == pytest.approx(loss)
    assert len(set(widths.values())) == 3
    for word in ("best", "last"):
        trainer.test(module, images(16), ckpt_path=word, verbose=False)
    assert best.best_model_path.endswith(".ckpt")
    assert "dense" not in best.best_model_path


def test_best_is_per_structure(tmp_path):
    best = ModelCheckpoint(tmp_path, "{epoch}", monitor="val/loss", save_top_k=1)
    stopping = EarlyStopping("val/loss", patience=1)
    fit(Module(), tmp_path, StructuredPruning(0.5, start_epoch=1, end_epoch=2), best, stopping)
    names = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert [name for name in names if "dense" in name] != []
    assert Path(best.best_model_path).name in names
    state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    assert state["network.conv1.weight"].shape[0] == 8


@pytest.mark.parametrize("weights_only", [False, True])
def test_fit_twice_and_after_test(weights_only, tmp_path):
    module = Module()
    saved = ModelCheckpoint(tmp_path, save_last=True, save_weights_only=weights_only)
    trainer = fit(module, tmp_path, StructuredPruning(0.25, start_epoch=1, end_epoch=1), saved)
    assert channels(module)["network.layer3.0.conv1"] == 48
    trainer.test(module, images(16), verbose=False)
    fit(module, tmp_path, StructuredPruning(0.5, start_epoch=1, end_epoch=1))
    assert channels(module)["network.layer3.0.conv1"] == 32  # of the dense 64
    again = load_from_checkpoint(Module, tmp_path / "last.ckpt")
    fit(again, tmp_path, StructuredPruning(target_macs=0.2, round_to=1))
    assert channels(again)["network.layer3.0.conv1"] < 40


class Stop(Callback):
    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 2:
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_nothing_stays_on_the_module(error, tmp_path):
    module = Module()
    before = {name for name in vars(module) if not name.startswith("_")}
    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)):
        fit(module, tmp_path, StructuredPruning(0.5, start_epoch=1, end_epoch=1), Stop(error))
    assert not set(vars(module)) & ATTACHED
    assert {name for name in vars(module) if not name.startswith("_")} == before
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in module.modules())
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


# --- training goes on -------------------------------------------------------------------------------------------------


class Manual(Module):
    """Two optimizers, stepped by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        last = list(self.network.fc.parameters())
        rest = [p for name, p in self.network.named_parameters() if not name.startswith("fc")]
        return [torch.optim.SGD(rest, lr=0.01, momentum=0.9), torch.optim.AdamW(last, lr=0.01)]


class Scheduled(Module):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=16)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Direct(LightningModule):
    """Layers directly on the module, functional ReLU, dict batches."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Linear(16, 10)

    def forward(self, image):
        return self.head(F.relu(self.norm(self.conv(image))).mean((2, 3)))

    training_step = lambda self, batch, batch_idx: F.cross_entropy(self(batch["image"]), batch["label"])  # noqa: E731
    configure_optimizers = lambda self: torch.optim.Adam(self.parameters())  # noqa: E731


class Late(Module):
    """Its layers are built in configure_model."""

    def __init__(self):
        LightningModule.__init__(self)
        self.network = None

    def configure_model(self):
        self.network = resnet() if self.network is None else self.network


def dicts():
    data = images().dataset
    return DataLoader([{"image": x, "label": y} for x, y in data], batch_size=16)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Manual, {}),
        (Scheduled, {}),
        (Module, {"precision": "bf16-mixed"}),
        (Module, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}),
        (Direct, {"loader": dicts()}),
        (Late, {}),
        (lambda: Module(torch.compile(resnet(), backend="aot_eager")), {}),
    ],
    ids=["manual", "scheduled", "bf16", "accumulated", "direct", "configure_model", "compiled inside"],
)
def test_trains_on(make, options, tmp_path):
    torch._dynamo.reset()
    module, sizes = make(), Sizes()
    pruning = StructuredPruning(0.5, start_epoch=1, end_epoch=2, round_to=1)
    trainer = fit(module, tmp_path, pruning, sizes, **options)
    assert len({tuple(seen.items()) for seen in sizes.seen}) == 3  # dense, and after each of two cuts
    assert len(recipe_of(module).steps) == 2
    assert trainer.global_step > 0
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_compiled_modules(tmp_path):
    torch._dynamo.reset()

    class Quiet(Module):  # the compiler cannot look into Lightning's log
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    module, sizes = Quiet(), Sizes()
    compiled = torch.compile(module, backend="aot_eager")
    seed_everything(1, verbose=False)
    fit(compiled, tmp_path, StructuredPruning(0.5, start_epoch=1, end_epoch=1), sizes)
    assert channels(module)["network.conv1"] == 8


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_frozen_layers_stay_frozen(tmp_path):
    module = Module()
    module.network.layer1.requires_grad_(False)
    module.network.layer1.eval()
    fit(module, tmp_path, StructuredPruning(0.5, start_epoch=1, end_epoch=1))
    assert not any(p.requires_grad for p in module.network.layer1.parameters())
    assert all(p.requires_grad for p in module.network.layer2.parameters())
    assert module.network.layer1[0].conv1.out_channels == 8


@pytest.mark.parametrize("package", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pl"])
def test_both_packages(package, tmp_path):
    class Foreign(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = MLP(16, (16,), 2)

        def forward(self, x):
            return self.network(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    module = Foreign()
    trainer = package.Trainer(
        max_epochs=2,
        callbacks=[StructuredPruning(0.5)],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(16, 16), torch.arange(16) % 2), batch_size=8))
    assert sorted(channels(module).values()) == [2, 8]


@pytest.mark.parametrize("regularize", ["bn_scale", "group"])
def test_sparse_training_shrinks_what_it_should(regularize, tmp_path):
    def size(strength):
        module = Module()
        seen = []

        class Look(Callback):
            def on_train_epoch_start(self, trainer, pl_module):
                if trainer.current_epoch == 3:
                    seen.append(
                        sum(float(m.weight.detach().abs().sum()) for m in pl_module.modules() if hasattr(m, "eps"))
                    )

        pruning = StructuredPruning(0.5, start_epoch=3, regularize=regularize, regularize_strength=strength, round_to=1)
        fit(module, tmp_path, Look(), pruning)
        return seen[0]

    seed_everything(0, verbose=False)
    weak = size(0.0)
    seed_everything(0, verbose=False)
    assert size(1.0) < 0.97 * weak


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("round_to", "gone"), [(1, "50%"), (8, "33%"), (16, "")])
def test_the_share_that_is_gone_is_counted_not_repeated(round_to, gone, tmp_path, caplog):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    cut = lit_xai.StructuredPruning(0.5, round_to=round_to, start_epoch=1, end_epoch=1, report_latency=False)
    with caplog.at_level("INFO"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one that removes nothing
        fit(Module(network), tmp_path, cut, max_epochs=2)
    said = [line for line in caplog.messages if line.startswith("StructuredPruning, epoch 1:")]
    removed = f"{1 - network[1].out_features / 12:.0%}" if said else ""
    assert removed == gone
    due = "" if round_to == 1 else f" of 50% that are due, in multiples of {round_to}"
    assert said == ([f"StructuredPruning, epoch 1: {removed} of the channels removed{due}."] if gone else [])


def test_what_can_be_measured_without_logits_is_reported(tmp_path, caplog):
    class Odd(nn.Sequential):
        def forward(self, x):
            return {"score": [super().forward(x)], "size": x.mean()}

    class Scored(Module):
        def forward(self, x):
            return self.network(x)["score"][0]

    cut = lit_xai.StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, module="network", output="absent")
    module = Scored(Odd(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)))
    with caplog.at_level("INFO"), pytest.warns(UserWarning, match=r"no MACs: No logits were found .* output="):
        fit(module, tmp_path, cut, max_epochs=2)
    (table,) = (line for line in caplog.messages if "dense and final" in line)
    assert "| params" in table
    assert "| size on disk" in table
    assert "MACs" not in table


def test_report(tmp_path, capsys):
    logger = TensorBoardLogger(tmp_path, name=None, version=0)
    seed_everything(0, verbose=False)
    model = Classifier(resnet(), num_classes=10)
    trainer = Trainer(
        max_epochs=4,
        callbacks=[lit_xai.StructuredPruning(target_macs=0.25), ModelCheckpoint(monitor="val/loss")],
        logger=[logger, CSVLogger(tmp_path, name="csv")],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, datamodule=Digits(batch_size=256, train_size=0.3))
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    macs = [event.value for event in events.Scalars("compression/MACs")]
    assert len(macs) == 4
    assert macs == sorted(macs, reverse=True)
    now = count_ops_and_params(copy.deepcopy(model.network), torch.zeros(1, 1, 8, 8))[0]
    assert macs[-1] == pytest.approx(now, rel=0.05)  # the counter adds batch norm and pooling
    assert [e.step for e in events.Scalars("compression/params")] == [e.step for e in events.Scalars("val/loss")]
    assert all(event.value > 0 for event in events.Scalars("compression/latency_ms"))
    assert events.Images("compression/channels")
    widths = {name: len(layer.weight) for name, layer in model.named_modules() if hasattr(layer, "kernel_size")}
    curves = {name: [e.value for e in events.Scalars(f"compression/channels/{name}")] for name in widths}
    assert {name: curve[-1] for name, curve in curves.items()} == widths
    assert all(len(curve) == 4 and curve == sorted(curve, reverse=True) for curve in curves.values())
    table = (Path(logger.log_dir) / "compression" / "summary.md").read_text()
    for word in ("params", "MACs", "size on disk", "latency", "val/loss"):
        assert word in table


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"pruning_ratio": 0.5, "target_macs": 0.5}, ("exactly one of",)),
        ({"pruning_ratio": 1.0}, ("pruning_ratio expected",)),
        ({"pruning_ratio": 0.5, "pruning_ratio_dict": {"a": 2}}, ("pruning_ratio_dict['a'] expected",)),
        ({"pruning_ratio": 0.5, "round_to": 0}, ("round_to expected a positive integer", "0")),
        ({"pruning_ratio": 0.5, "max_pruning_ratio": 0}, ("max_pruning_ratio expected",)),
        ({"pruning_ratio": 0.5, "importance": "GroupMagnitude"}, ("importance", "GroupMagnitudeImportance")),
        ({"pruning_ratio": 0.5, "regularize": "bn"}, ("regularize expected one of", "bn_scale")),
        ({"pruning_ratio": 0.5, "importance_samples": 0}, ("importance_samples expected",)),
    ],
)
def test_refused_when_made(options, parts):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the parts say which
        StructuredPruning(**options)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


class Odd(Module):
    def forward(self, x):
        if torch.is_grad_enabled() and not self.training:
            raise KeyError("no such thing")
        return self.network(x)


@pytest.mark.parametrize(
    ("options", "make", "parts"),
    [
        ({"ignored_layers": ["network.layr1*"], "pruning_ratio": 0.5}, Module, ("ignored_layers", "network.layr1*")),
        ({"target_macs": 0.01, "round_to": 8}, Module, ("target_macs", "out of reach", "round_to")),
        ({"target_params": 10}, Module, ("target_params", "out of reach")),
        ({"target_macs": "99G"}, Module, ("target_macs expected at most the dense network's",)),
        ({"pruning_ratio": 0.5, "start_epoch": 7}, Module, ("start_epoch", "never be reached")),
        ({"pruning_ratio": 0.5, "module": "netwrk"}, Module, ("module='netwrk'", "network")),
        ({"pruning_ratio": 0.5}, Odd, ("cannot be traced", "module=")),
        ({"pruning_ratio": 0.5, "batch_to_inputs": "image"}, Module, ("batch_to_inputs='image'",)),
        ({"pruning_ratio": 0.5, "regularize": "bn_scale"}, lambda: Module(MLP(64, (16,), 10)), ("bn_scale", "'group'")),
    ],
)
def test_refused_before_the_first_step(options, make, parts, tmp_path):
    module, steps = make(), []

    class Count(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            steps.append(batch_idx)

    with pytest.raises(Exception) as caught:  # noqa: PT011  # Lightning's or the library's; the parts tell which
        fit(module, tmp_path, StructuredPruning(**options), Count())
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert not steps
    assert not set(vars(module)) & ATTACHED


def test_a_low_learning_rate_is_warned_of(tmp_path):
    class Low(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.01)]

    with pytest.warns(UserWarning, match="under 10% of its peak"):
        fit(Low(), tmp_path, StructuredPruning(0.5, start_epoch=2, end_epoch=2))


def test_two_of_them_are_refused(tmp_path):
    with pytest.raises(Exception, match="Two StructuredPruning"):
        fit(Module(), tmp_path, StructuredPruning(0.5), StructuredPruning(0.25))


def test_the_loss_is_finite_and_falls_again(tmp_path):
    module = Module()
    trainer = fit(module, tmp_path, StructuredPruning(0.5, start_epoch=1, end_epoch=1), max_epochs=8)
    assert float(trainer.callback_metrics["train/loss"]) < math.log(10)

"""QuantizationAwareTraining in real runs: what it leaves unchanged, its checkpoints, and what it refuses."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from refusals import refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lit_xai
from lit_xai import QuantizationAwareTraining, StructuredPruning
from lit_xai.quantization.fake_quantizers import find_fake_quantizers
from lit_xai.quantization.quantization import describe_quantization, is_quantized
from lit_xai.structure.recipe import recipe_of


class ByEpoch(torch.utils.data.Sampler):
    def __init__(self, module, n):
        self.module, self.n = module, n

    def __len__(self):
        return self.n

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.module.current_epoch)
        return iter(torch.randperm(self.n, generator=generator).tolist())


class Net(nn.Module):
    """BatchNorms are declared after all convolutions: folding changes the order of parameters."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.relu, self.fc = nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(F.max_pool2d(self.relu(self.bn2(self.conv2(x)) + x), 2).mean((2, 3)))


class Module(LightningModule):
    def __init__(self, lr=0.05, optimizer="SGD"):
        super().__init__()
        self.save_hyperparameters()
        self.network = Net()
        self.losses = []

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(48, 1, 8, 8, generator=generator)
        return TensorDataset(x, (x.mean((1, 2, 3)) > 0).long() + 2 * (x[:, 0, 0, 0] > 0).long())

    def train_dataloader(self):
        return DataLoader(self.data(), batch_size=8, sampler=ByEpoch(self, 48))

    def val_dataloader(self):
        return DataLoader(self.data(), batch_size=16)

    test_dataloader = val_dataloader

    def configure_optimizers(self):
        if self.hparams.optimizer == "groups":
            decayed = [p for p in self.parameters() if p.dim() > 1]
            rest = [p for p in self.parameters() if p.dim() == 1]
            return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}])
        options = {"momentum": 0.9} if self.hparams.optimizer == "SGD" else {}
        return getattr(torch.optim, self.hparams.optimizer)(self.parameters(), lr=self.hparams.lr, **options)


def fit(folder, *callbacks, epochs=4, module=None, ckpt_path=None, **options):
    seed_everything(0, verbose=False)
    module = module or Module()
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=epochs, callbacks=list(callbacks), default_root_dir=folder, **{**settings, **options})
    trainer.fit(module, ckpt_path=ckpt_path)
    return trainer, module


def every_epoch(folder):
    return ModelCheckpoint(folder, "{epoch}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    best = ModelCheckpoint(folder / "best", monitor="val/loss", save_last=True)
    callback = QuantizationAwareTraining(2, calibration_batches=2, freeze_epoch=3)
    trainer, module = fit(folder, callback, best, EarlyStopping("val/loss", patience=50))
    return trainer, module, best


def test_names_classes_and_hooks_stay(run):
    _, module, _ = run
    fresh = Module()
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in fresh.named_parameters()]
    kinds = {name: type(part) for name, part in fresh.named_modules()}
    found = {name: type(part) for name, part in module.named_modules()}
    assert {name: found[name] for name in kinds} == kinds
    assert set(found) - set(kinds) == {name for name in found if name.startswith("fake_quantizers")}
    assert not list(module.fake_quantizers.parameters())
    assert "on_save_checkpoint" not in vars(module)
    (step,) = recipe_of(module).steps
    assert step["kind"] == "quantize"
    assert step["plan"]["norms"] == [["network.conv1", "network.bn1"], ["network.conv2", "network.bn2"]]


def test_everything_is_an_integer(run):
    facts = describe_quantization(run[1])
    assert facts["integer"] == ["network.conv1", "network.conv2", "network.fc"]
    assert facts["float"] == {}
    assert len(run[1].network.conv1.weight.unique()) > 72 / 2  # the parameter itself stays what it is


def test_ranges_are_frozen_and_nothing_moves_in_eval(run):
    _, module, _ = run
    fake_quantizers = find_fake_quantizers(module)
    flags = {name: int(r.observer_enabled) for name, r in fake_quantizers.fake_quants.items()}
    assert {name for name, flag in flags.items() if flag} == {name for name in flags if name.endswith("weight")}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()(torch.randn(8, 1, 8, 8) * 100)
    assert same(before, module.state_dict())


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create")
@pytest.mark.parametrize("which", ["best", "last", "path", "class", "plain"])
def test_checkpoints_load_everywhere(run, which):
    trainer, module, best = run
    expected = trainer.validate(module, verbose=False, ckpt_path=best.best_model_path)[0]
    if which in ("best", "last"):
        assert trainer.test(module, ckpt_path=which, verbose=False)[0]["val/loss"] == pytest.approx(
            expected["val/loss"] if which == "best" else trainer.validate(module, verbose=False)[0]["val/loss"]
        )
        return
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    if which == "class":
        loaded = lit_xai.load_from_checkpoint(Module, best.best_model_path)
        assert is_quantized(loaded)
        found = Trainer(**options).validate(loaded, verbose=False)[0]
    else:
        callbacks = [QuantizationAwareTraining(2)] if which == "path" else [Follow()]
        found = Trainer(callbacks=callbacks, **options).validate(
            Module(), ckpt_path=best.best_model_path, verbose=False
        )[0]
    assert found == expected


class Follow(Callback):
    def setup(self, trainer, pl_module, stage):
        lit_xai.structure.attachment.attach(pl_module, self)


def test_best_starts_over(run):
    _, _, best = run
    names = sorted(path.name for path in Path(best.dirpath).iterdir())
    assert any("-dense" in name for name in names), names
    state = torch.load(best.best_model_path)
    assert [step["kind"] for step in state["lit_xai_recipe"]["steps"]] == ["quantize"]


def test_copies_and_pickles_quantize_as_well(run):
    _, module, _ = run
    x = torch.randn(8, 1, 8, 8)
    expected = module.eval()(x)
    assert not torch.equal(expected, module.network(x))  # nothing is rounded in a part that is called by itself
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), expected)
        assert find_fake_quantizers(other) is not find_fake_quantizers(module)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "groups"])
def test_resumed_from_any_epoch_it_ends_the_same(optimizer, tmp_path):
    def callbacks(folder):
        return [QuantizationAwareTraining(2, calibration_batches=2, freeze_epoch=4), every_epoch(folder)]

    _, whole = fit(tmp_path, *callbacks(tmp_path / "whole"), epochs=5, module=Module(optimizer=optimizer))
    for epoch in range(4):
        path = tmp_path / "whole" / f"epoch={epoch}.ckpt"
        again = callbacks(tmp_path / str(epoch))
        _, resumed = fit(tmp_path, *again, epochs=5, module=Module(optimizer=optimizer), ckpt_path=path)
        assert same(whole.state_dict(), resumed.state_dict()), epoch


def test_optimizers_go_on_with_what_is_left(tmp_path):
    trainer, module = fit(tmp_path, QuantizationAwareTraining(1), epochs=2, module=Module(optimizer="groups"))
    groups = trainer.optimizers[0].param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in module.parameters())
    assert all(p.dim() == 1 for p in groups[1]["params"])
    assert {id(p) for p in trainer.optimizers[0].state} == set(held)


def test_after_pruning_and_with_a_dense_teacher(tmp_path):
    callbacks = [
        lit_xai.KnowledgeDistillation("dense"),
        QuantizationAwareTraining(3),
        StructuredPruning(0.5, start_epoch=1, end_epoch=2, every_n_epochs=1, round_to=1, report_latency=False),
        every_epoch(tmp_path / "all"),
    ]
    _, module = fit(tmp_path, *callbacks, epochs=5)
    assert [step["kind"] for step in recipe_of(module).steps] == ["prune", "prune", "quantize"]
    assert module.network.conv1.out_channels == 4
    loaded = lit_xai.load_from_checkpoint(Module, tmp_path / "all" / "epoch=4.ckpt")
    assert same(loaded.state_dict(), module.state_dict())


def test_what_is_copied_before_the_first_batch(tmp_path):
    cuts = StructuredPruning(0.5, start_epoch=0, end_epoch=0, round_to=1, report_latency=False)
    callbacks = [cuts, lit_xai.KnowledgeDistillation("dense"), QuantizationAwareTraining(1, calibration_batches=1)]
    _, module = fit(tmp_path, *callbacks, epochs=2)
    assert find_fake_quantizers(module).is_calibrated()
    assert not list(module.network._forward_pre_hooks)


def test_a_dense_teacher_without_pruning(tmp_path):
    _, module = fit(tmp_path, lit_xai.KnowledgeDistillation("dense"), QuantizationAwareTraining(1), epochs=3)
    assert is_quantized(module)


def test_any_module_that_is_its_own_network(tmp_path):
    class Direct(Module):
        def __init__(self):
            super().__init__()
            del self.network
            self.conv, self.bn, self.fc = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(F.relu(self.bn(self.conv(x))).mean((2, 3)))

    _, module = fit(tmp_path, QuantizationAwareTraining(1), every_epoch(tmp_path), epochs=2, module=Direct())
    assert describe_quantization(module)["integer"] == ["conv", "fc"]
    assert is_quantized(lit_xai.load_from_checkpoint(Direct, tmp_path / "epoch=1.ckpt"))


class Statistics(Callback):
    """Keeps the running means that each epoch begins with, and those of the end."""

    def __init__(self):
        self.seen = {}

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen[trainer.current_epoch] = pl_module.network.bn1.running_mean.clone()

    def on_train_end(self, trainer, pl_module):
        self.seen[trainer.current_epoch] = pl_module.network.bn1.running_mean.clone()


class Decays(Module):
    """Its learning rate falls to a tenth at epoch 3."""

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [3], 0.1)]


class SwitchesModes(Decays):
    def training_step(self, batch, batch_idx):
        self.eval()
        self.train()
        return super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("make", [Decays, SwitchesModes])
def test_statistics_of_norms_are_frozen_in_the_last_epochs_alone(make, tmp_path):
    statistics, saved = Statistics(), every_epoch(tmp_path)
    callback = QuantizationAwareTraining(1, calibration_batches=2, freeze_epoch=3)
    _, module = fit(tmp_path, statistics, callback, saved, epochs=5, module=make())
    moved = [not torch.equal(statistics.seen[n], statistics.seen[n + 1]) for n in range(5)]
    assert moved == [True, True, True, False, False]
    resumed = Statistics()
    path = tmp_path / "epoch=3.ckpt"
    fit(tmp_path, resumed, callback, every_epoch(tmp_path), epochs=5, module=make(), ckpt_path=path)
    assert torch.equal(resumed.seen[5], statistics.seen[5])
    # Nothing of it outlives the run.
    assert all(part.training for part in module.train().modules())
    module(torch.randn(4, 1, 8, 8))
    assert not torch.equal(module.network.bn1.running_mean, statistics.seen[5])


@pytest.mark.parametrize("kind", ["constant", "rises again", "one group of two"])
def test_statistics_are_not_frozen_at_a_high_learning_rate(kind, tmp_path, caplog):
    class Other(Module):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            if kind == "one group of two":
                optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1})
            rates = {
                "constant": lambda epoch: 1.0,
                "rises again": lambda epoch: 0.1 if epoch == 3 else 1.0,
                "one group of two": [lambda epoch: 1.0, lambda epoch: 0.1],
            }
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, rates[kind])]

    statistics = Statistics()
    with caplog.at_level("INFO"):
        fit(tmp_path, statistics, QuantizationAwareTraining(1, freeze_epoch=3), epochs=5, module=Other())
    assert caplog.text.count("statistics of BatchNorms go on moving") == (kind != "rises again")
    frozen = [torch.equal(statistics.seen[n], statistics.seen[n + 1]) for n in range(5)]
    assert frozen == [False, False, False, kind == "rises again", False]


class OnlyANetwork(Module):
    """No forward of its own, and another callback that calls its network before anything is trained."""

    forward = LightningModule.forward

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self.network(batch[0]), batch[1]))


@pytest.mark.parametrize("manual", [False, True])
def test_the_network_is_found_by_its_call(manual, tmp_path):
    class Manual(OnlyANetwork):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.optimizers().zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            self.optimizers().step()

    callback = QuantizationAwareTraining(1, calibration_batches=1, module="network" if manual else None)
    monitor = lit_xai.AttributionMonitor(module="network", probe=2)
    _, module = fit(tmp_path, callback, monitor, epochs=2, module=Manual() if manual else OnlyANetwork())
    assert find_fake_quantizers(module.network).is_calibrated()
    assert recipe_of(module).steps[-1]["module"] == "network"


class Wraps(SingleDeviceStrategy):
    """Calls the training step through the module, as DDP does."""

    def __init__(self):
        super().__init__("cpu")

    def setup(self, trainer):
        super().setup(trainer)
        self.model = nn.ModuleList([self.lightning_module])
        self.model.forward = lambda *args: self.model[0](*args)


def test_the_network_is_found_by_its_call_where_the_strategy_calls_the_module(tmp_path):
    _, module = fit(
        tmp_path, QuantizationAwareTraining(1, calibration_batches=1), epochs=2, module=OnlyANetwork(), strategy=Wraps()
    )
    assert recipe_of(module).steps[-1]["module"] == "network"
    assert "training_step" not in vars(module)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precisions(precision, tmp_path):
    _, module = fit(tmp_path, QuantizationAwareTraining(1, calibration_batches=1), epochs=2, precision=precision)
    assert find_fake_quantizers(module).is_calibrated()
    assert torch.isfinite(module.network(torch.randn(2, 1, 8, 8))).all()


class Wide(Module):
    def data(self):
        x, y = super().data().tensors
        return TensorDataset(x.double(), y)


def test_a_network_in_float64(tmp_path):
    export = lit_xai.ModelExport(tmp_path / "export", program=False)
    _, module = fit(tmp_path, QuantizationAwareTraining(1), export, epochs=2, precision="64-true", module=Wide())
    assert find_fake_quantizers(module).is_calibrated()
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    (row,) = [row for row in export.report.rows if row.name.startswith("int8")]
    assert row.difference < 0.02
    assert export.report.integer_operators


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_a_network_that_trains_in_eval_mode(tmp_path):
    module = Module()
    module.network.eval()  # as those of transformers' from_pretrained() are
    fit(tmp_path, QuantizationAwareTraining(1), epochs=2, module=module)
    fake_quantizers = find_fake_quantizers(module)
    assert fake_quantizers.is_calibrated()
    assert not fake_quantizers.unobserved()
    assert not module.network.conv1.training


class Overflows(Callback):
    """Its gradients are infinite in one float16 step, which the gradient scaler then skips."""

    def __init__(self, scaler):
        self.scaler, self.left_out = scaler, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.scale = self.scaler.get_scale()
        self.before = {n: p.detach().clone() for n, p in pl_module.named_parameters()}

    def on_after_backward(self, trainer, pl_module):
        if (trainer.current_epoch, len(self.left_out)) == (2, 0):
            pl_module.network.conv1.weight.grad.fill_(torch.inf)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        assert torch.isfinite(outputs["loss"])
        now = dict(pl_module.named_parameters())
        moved = [name for name, value in self.before.items() if name in now and not torch.equal(now[name], value)]
        if self.scaler.get_scale() < self.scale:
            self.left_out += [trainer.current_epoch]
            assert not moved
        else:
            assert "network.conv1.weight" in moved


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_float16_leaves_out_a_step_that_overflows(optimizer, tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    watch = Overflows(scaler)
    _, module = fit(
        tmp_path,
        QuantizationAwareTraining(1, calibration_batches=1),
        watch,
        epochs=3,
        module=Module(optimizer=optimizer),
        plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)],
        enable_checkpointing=False,
    )
    assert watch.left_out == [2]
    fake_quantizers = find_fake_quantizers(module)
    kept = [*fake_quantizers.ranges(), *(fake_quant.scale for fake_quant in fake_quantizers.fake_quants.values())]
    assert {value.dtype for value in kept} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in kept)


def test_an_exception_after_pruning_and_quantization_leaves_the_module_clean(tmp_path):
    class Fails(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == 1:
                raise RuntimeError("on purpose")

    module = Module()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, QuantizationAwareTraining(1), Fails(), module=module)
    assert not {"on_save_checkpoint", "on_load_checkpoint", "__reduce_ex__"} & set(vars(module))
    assert not torch.nn.modules.module._global_forward_hooks


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"bits": 1}, ["bits expected an integer from 2 to 8", "1"]),
        ({"bits": {"network.*": 9}}, ["bits['network.*']", "9"]),
        ({"bits": True}, ["bits"]),
        ({"cpu": "avx"}, ["cpu expected one of any, vnni, arm64", "avx"]),
        ({"activations": "signed"}, ["activations expected one of"]),
        ({"calibration_batches": 0}, ["calibration_batches expected a positive integer"]),
        ({"start_epoch": 1.5}, ["start_epoch"]),
        ({"freeze_epoch": -1}, ["freeze_epoch"]),
    ],
)
def test_arguments_are_refused(arguments, parts):
    with refused(*parts):
        QuantizationAwareTraining(**arguments)


class InParts(Module):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(self.body(batch[0])), batch[1])

    def __init__(self):
        super().__init__()
        del self.network
        self.body, self.head = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), nn.Linear(144, 4)

    def forward(self, x):
        return self.head(self.body(x))


class NoLayers(Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.AdaptiveAvgPool1d(4))


class TakesAll(Module):
    """Its forward takes a whole batch."""

    def forward(self, b):
        return self.network(b["image"])

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))

    def data(self):
        return [dict(zip(("image", "label"), sample, strict=True)) for sample in super().data()]


class Compiled(Module):
    def __init__(self):
        super().__init__()
        self.network = torch.compile(self.network, backend="eager")


class Chained(InParts):
    """Its step does what its forward does, but for something in between."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(torch.tanh(self.body(batch[0]))), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))


@pytest.mark.parametrize("make", [InParts, Chained, TakesAll])
def test_steps_that_call_parts_or_take_batches_are_quantized(make, tmp_path):
    _, module = fit(tmp_path, QuantizationAwareTraining(1), module=make())
    assert len(describe_quantization(module)["integer"]) >= 2
    fake_quantizers = find_fake_quantizers(module)
    assert fake_quantizers.is_calibrated()
    assert not {"training_step", "validation_step", "test_step"} & set(vars(module))
    # In a Trainer of its own as well, tensors are on the grid within its steps.
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = Trainer(callbacks=[QuantizationAwareTraining(1)], **options)
    (quantized,) = trainer.validate(module, verbose=False)
    fake_quantizers.enable_fake_quant_(False)
    (in_float,) = trainer.validate(module, verbose=False)
    assert quantized != in_float
    assert quantized["val/loss"] == pytest.approx(in_float["val/loss"], abs=0.05)


class Predicts(Chained):
    """Calls its parts in all of its steps."""

    def predict_step(self, batch, batch_idx):
        return self.head(torch.tanh(self.body(batch[0])))


class PredictsByForward(Predicts):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def predict_step(self, batch, batch_idx):
        return self(batch[0])


@pytest.mark.parametrize("make", [Predicts, PredictsByForward])
def test_predictions_are_quantized_as_the_steps_are(make, tmp_path):
    trainer, module = fit(tmp_path, QuantizationAwareTraining(1), module=make())
    data = module.val_dataloader()
    same = torch.cat(trainer.predict(module, data))
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    # In a Trainer that only predicts as well.
    other = Trainer(callbacks=[QuantizationAwareTraining(1)], **options)
    quantized = torch.cat(other.predict(module, data))
    assert torch.equal(same, quantized)
    find_fake_quantizers(module).enable_fake_quant_(False)
    in_float = torch.cat(other.predict(module, data))
    assert not torch.equal(quantized, in_float)
    assert (quantized - in_float).norm() < 0.2 * in_float.norm()
    assert "predict_step" not in vars(module)


class ScoredNet(Net):
    """Gives something else in evaluation mode, by layers of its own, over which nothing is ever observed."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(4, 4)

    def forward(self, x):
        logits = super().forward(x)
        return logits if self.training else logits + 0.01 * self.scale(logits).sub(logits)


def test_what_only_evaluation_computes_stays_in_float(tmp_path, caplog):
    module = Module()
    module.network = ScoredNet()
    export = lit_xai.ModelExport(tmp_path / "export", program=False)
    with caplog.at_level("INFO"):
        fit(tmp_path, QuantizationAwareTraining(1), export, epochs=2, module=module)
    fake_quantizers = find_fake_quantizers(module)
    assert fake_quantizers.is_calibrated()
    left = fake_quantizers.unobserved()
    assert left
    assert all("scale" in name or "sub" in name for name in left)
    assert any("stays in float" in message and left[0] in message for message in caplog.messages)
    assert not any("NaN or infinity" in message for message in caplog.messages)
    x = next(iter(module.val_dataloader()))[0]
    with torch.no_grad():
        quantized = module.eval()(x)
        fake_quantizers.enable_fake_quant_(False)
        assert (quantized - module(x)).norm() < 0.2 * quantized.norm()
    (row,) = [row for row in export.report.rows if row.name.startswith("int8")]
    assert row.difference < 0.2


@pytest.mark.parametrize(
    ("make", "callbacks", "message"),
    [
        (
            Module,
            [QuantizationAwareTraining(4)],
            "start_epoch expected an epoch of the run, .* 0 to 3, but got 4",
        ),
        (Module, [QuantizationAwareTraining(1), QuantizationAwareTraining(1)], "keep one"),
        (
            Module,
            [QuantizationAwareTraining(1), StructuredPruning(0.5, start_epoch=1)],
            "last step of StructuredPruning",
        ),
        (Module, [QuantizationAwareTraining(1, ignored_layers=["network.conv9"])], "Did you mean 'network.conv"),
        (Module, [QuantizationAwareTraining(1, bits={"network.cnv*": 4})], "bits: 'network.cnv\\*' matches no layer"),
        (InParts, [QuantizationAwareTraining(1, module="bdy")], "Did you mean 'body'"),
        (NoLayers, [QuantizationAwareTraining(1)], "no convolution or linear layer"),
        (Compiled, [QuantizationAwareTraining(1)], "cannot see into the compiled 'network'"),
    ],
)
def test_runs_are_refused_before_they_cost_anything(make, callbacks, message, tmp_path):
    module = make()
    with pytest.raises(Exception, match=message) as caught:
        fit(tmp_path, *callbacks, module=module)
    assert type(caught.value).__name__ in ("MisconfigurationException", "ValueError")
    assert "/lit_xai/" in str(caught.traceback[-1].path)
    assert "\n" not in str(caught.value)
    assert len(module.losses) <= 1
    assert not {"on_save_checkpoint", "on_load_checkpoint"} & set(vars(module))


def test_a_module_without_forward_is_exported_too(tmp_path):
    export = lit_xai.ModelExport(tmp_path / "export", program=False)
    fit(tmp_path, QuantizationAwareTraining(1), export, epochs=2, module=OnlyANetwork())
    assert (tmp_path / "export" / "model.int8.onnx").exists()


def test_names_may_begin_at_the_module_or_inside(tmp_path):
    for layer, name in (("fc", "one"), ("network.fc", "two")):
        callback = QuantizationAwareTraining(1, ignored_layers=[layer], bits={"network.conv1": 4, "conv2": 3})
        _, module = fit(tmp_path / name, callback, epochs=2, module=OnlyANetwork())
        assert describe_quantization(module)["integer"] == ["network.conv1", "network.conv2"]
        sites = find_fake_quantizers(module).sites
        assert {s["layer"]: s["high"] for s in sites.values() if s["channels"]} == {"conv1": 7, "conv2": 3}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create")
def test_another_scheme_on_resume_warns(tmp_path):
    fit(tmp_path, QuantizationAwareTraining(0), every_epoch(tmp_path), epochs=1)
    callbacks = [QuantizationAwareTraining(0, bits=4)]
    with pytest.warns(UserWarning, match="continues with bits=8, as the run began, rather than 4"):
        fit(tmp_path, *callbacks, epochs=2, ckpt_path=tmp_path / "epoch=0.ckpt", enable_checkpointing=False)


def test_a_run_that_ends_before_quantization_begins_warns(tmp_path):
    with pytest.warns(UserWarning, match=r"never began: the run ended before epoch 3.* max_steps"):
        _, module = fit(tmp_path, QuantizationAwareTraining(3), max_steps=5)
    assert not is_quantized(module)


def test_a_run_that_ends_within_calibration_is_quantized_all_the_same(tmp_path):
    export = lit_xai.ModelExport(tmp_path / "export", program=False)
    with pytest.warns(UserWarning, match="ended while ranges were still observed.* Lower start_epoch"):
        _, module = fit(tmp_path, QuantizationAwareTraining(2), export, max_steps=14)
    x = module.data().tensors[0]
    fake_quantizers = find_fake_quantizers(module)
    with torch.no_grad():
        quantized = module.eval()(x)
        fake_quantizers.enable_fake_quant_(False)
        assert 0 < (quantized - module(x)).norm() < 0.2 * quantized.norm()
    (row,) = [row for row in export.report.rows if row.name.startswith("int8")]
    assert row.difference < 0.02


def test_the_one_step_of_a_run_is_quantized(tmp_path):
    _, module = fit(tmp_path, QuantizationAwareTraining(1), epochs=2, limit_train_batches=1)
    assert find_fake_quantizers(module).is_enabled()
    assert not find_fake_quantizers(module).unobserved()


def test_one_layer_may_be_named_alone(tmp_path):
    _, module = fit(tmp_path, QuantizationAwareTraining(1, ignored_layers="network.fc"), epochs=2)
    assert describe_quantization(module)["integer"] == ["network.conv1", "network.conv2"]


def test_a_run_that_diverges_is_told_why(tmp_path):
    with pytest.warns(UserWarning, match="gradient_clip_val"):
        fit(tmp_path, QuantizationAwareTraining(1), epochs=3, module=Module(lr=1e6))


def test_averages_are_refused(tmp_path):
    from lightning.pytorch.callbacks import EMAWeightAveraging

    with pytest.raises(Exception, match="cannot work with EMAWeightAveraging"):
        fit(tmp_path, QuantizationAwareTraining(1), EMAWeightAveraging())


def test_weights_of_other_precision_are_refused(tmp_path):
    with pytest.raises(Exception, match="expected weights of float32"):
        fit(tmp_path, QuantizationAwareTraining(1), precision="bf16-true")


class TestTheOldNameOfCalibrationBatches:
    def test_it_works_and_warns(self):
        with pytest.warns(FutureWarning, match="warm_up_batches is now calibration_batches"):
            callback = QuantizationAwareTraining(warm_up_batches=4)
        assert callback.calibration_batches == 4

    def test_both_names_are_refused(self):
        with refused("warm_up_batches is the old name of calibration_batches", "4 and 8"):
            QuantizationAwareTraining(calibration_batches=8, warm_up_batches=4)

    @pytest.mark.filterwarnings("ignore:warm_up_batches is now")
    def test_its_value_is_checked(self):
        with refused("warm_up_batches expected a positive integer, but got 0."):
            QuantizationAwareTraining(warm_up_batches=0)

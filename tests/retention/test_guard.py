"""The guard in real runs: back at the accepted moment bit for bit, no trace where nothing is missed, resumable."""

import json
import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from processes import run_script
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import KnowledgeDistillation, QuantizationAwareTraining, RetentionMonitor, StructuredPruning
from lit_xai.structure.attachment import copies_of
from lit_xai.structure.recipe import recipe_of
from lit_xai.trainer.structural_callback import StructuralCallback

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
FAST = {"n": 40, "nulls": 4, "ladder": (8, 3), "second_explainer": None, "time_share": 1e9, "time_budget": 1e9}
FAST |= {"on_error": "raise"}
MISSED = {"similarity": ">=0.999"}
MET = {"val_acc": "drop<=1", "retention": ">=-5", "flips": "<=1"}


class Module(LightningModule):
    def __init__(self, optimizer="sgd"):
        super().__init__()
        self.optimizer = optimizer
        self.network = nn.Sequential(
            nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 16), nn.ReLU()
        )
        self.network.append(nn.Linear(16, 3))
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        self.seen += 1
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        if self.optimizer == "adam":
            optimizer = torch.optim.Adam(self.parameters(), 0.01)
        else:
            optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]


def data(n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 12, generator=generator)
    return TensorDataset(x, (x @ torch.randn(12, 3, generator=torch.Generator().manual_seed(9))).argmax(1))


class Cut(StructuralCallback):
    """Take away the last hidden unit at the start of some epochs."""

    def __init__(self, *epochs):
        super().__init__()
        self.epochs = epochs

    def change(self, trainer, pl_module):
        if trainer.current_epoch in self.epochs:
            width = pl_module.network[4].out_features
            kept = list(range(width - 1))
            names = [("4.weight", 0), ("4.bias", 0), ("6.weight", 1)]
            sizes = [["network.4", "out_features", width, width - 1], ["network.6", "in_features", width, width - 1]]
            cuts = [[f"network.{name}", dim, width, kept] for name, dim in names]
            self.take_step(trainer, pl_module, {"kind": "prune", "kept": cuts, "attributes": sizes})


class Witness(Callback):
    """What a run is like before an epoch, and at its end: independent of how the guard keeps it."""

    def __init__(self):
        self.at, self.metric = {}, {}

    def on_train_epoch_start(self, trainer, pl_module):
        self.at[trainer.current_epoch] = moment(trainer, pl_module)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.metric[trainer.current_epoch + 1] = float(trainer.callback_metrics["val_acc"])

    def on_fit_end(self, trainer, pl_module):
        self.at["end"] = moment(trainer, pl_module)


def moment(trainer, pl_module):
    named = [*pl_module.named_parameters(), *pl_module.named_buffers()]
    values = {name: value.detach().clone() for name, value in named}
    for place, optimizer in enumerate(trainer.optimizers):
        for group in optimizer.param_groups:
            for number, parameter in enumerate(group["params"]):
                state = optimizer.state.get(parameter, {})
                values |= {f"{place}/{number}/{key}": torch.as_tensor(one).clone() for key, one in state.items()}
    for one in trainer.callbacks:
        if isinstance(one, EMAWeightAveraging):
            values |= {f"average/{k}": v.detach().clone() for k, v in one._average_model.state_dict().items()}
    return values


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def run(folder, *callbacks, module=None, epochs=5, ckpt_path=None, **options):
    torch.manual_seed(0)
    module = Module() if module is None else module
    trainer = Trainer(max_epochs=epochs, default_root_dir=folder, callbacks=list(callbacks), **{**QUIET, **options})
    with warnings.catch_warnings():
        for known in (
            "does not have many workers",
            "The number of training batches",
            "The dirpath has changed",
            "Checkpoint directory",
        ):
            warnings.filterwarnings("ignore", message=f".*{known}")
        warnings.filterwarnings("ignore", message=".*(guard, |will remove nothing|did not make)")
        loaders = DataLoader(data(), 16), DataLoader(data(50, 1), 50)
        trainer.fit(module, *loaders, ckpt_path=ckpt_path)
    return trainer, module


def read(folder):
    return json.loads((folder / "retention" / "retention.json").read_text())


def decisions(folder):
    return [(one["when"], one["decision"].split()[0]) for one in read(folder)["guard"]["readings"]]


SLOW = pytest.mark.slow


def undo(folder, *averages, module=None, ckpt_path=None):
    """A cut at epoch 1 that is undone when the next one comes at epoch 3, and no further one."""
    before, after, cut = Witness(), Witness(), Cut(1, 3, 4)
    guard = RetentionMonitor(guard=MISSED | {"val_acc": "drop<=1"}, **FAST)
    saved = ModelCheckpoint(folder / "saved", filename="{epoch}", save_top_k=-1)
    trainer, _ = run(folder, *averages, before, cut, after, guard, saved, module=module, ckpt_path=ckpt_path)
    return trainer, before, after, cut


@pytest.fixture(scope="module")
def undone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undone")
    return folder, *undo(folder)


def check_undone(folder, before, after, cut):
    assert same(after.at[3], before.at[1])
    assert not same(after.at[2], before.at[1])
    assert cut.stopped.startswith("RetentionMonitor's guard, before epoch 3: the model misses similarity >=0.999 by ")
    assert decisions(folder)[:2] == [("before epoch 1", "accepted"), ("before epoch 3", "returned")]
    assert [len(value) for name, value in after.at["end"].items() if name == "network.4.bias"] == [16]


def test_back_at_the_accepted_moment(undone):
    folder, _, *witnesses = undone
    check_undone(folder, *witnesses)


@SLOW
@pytest.mark.parametrize(("optimizer", "average"), [("adam", True), ("sgd", True), ("adam", False)])
def test_back_at_the_accepted_moment_with_more_state(optimizer, average, tmp_path):
    averages = [EMAWeightAveraging(decay=0.8)] if average else []
    _, *witnesses = undo(tmp_path, *averages, module=Module(optimizer))
    check_undone(tmp_path, *witnesses)


class Scale(Callback):
    def __init__(self):
        self.at = {}

    def on_train_epoch_start(self, trainer, pl_module):
        self.at[trainer.current_epoch] = dict(trainer.precision_plugin.scaler.state_dict())


@SLOW
def test_the_gradient_scaler_is_brought_back(tmp_path):
    before, after = Scale(), Scale()
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", growth_interval=3))
    run(tmp_path, before, Cut(1, 3), after, RetentionMonitor(guard=MISSED, **FAST), plugins=[precision])
    assert after.at[3] == before.at[1] != after.at[2]


@SLOW
def test_a_teacher_that_averages_is_brought_back(tmp_path):
    class Teacher(Callback):
        def __init__(self):
            self.at = {}

        def on_train_epoch_start(self, trainer, pl_module):
            (teacher,) = copies_of(pl_module)
            self.at[trainer.current_epoch] = {name: one.clone() for name, one in teacher.state_dict().items()}

    before, after = Teacher(), Teacher()
    monitor = RetentionMonitor(guard=MISSED, **FAST)
    run(tmp_path, before, Cut(1, 3), KnowledgeDistillation("ema"), after, monitor)
    assert same(after.at[3], before.at[1])


def test_the_schedule_goes_on(undone):
    trainer = undone[1]
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**5)
    assert trainer.lr_scheduler_configs[0].scheduler.optimizer.param_groups is trainer.optimizers[0].param_groups


@pytest.mark.parametrize("average", [pytest.param("none", marks=SLOW), "first", pytest.param("last", marks=SLOW)])
def test_back_at_the_end(average, tmp_path):
    """The metric is that of the accepted moment as well."""
    before, witness = Witness(), Witness()
    averages = [] if average == "none" else [EMAWeightAveraging(decay=0.8)]
    observers = [Cut(3), RetentionMonitor(guard=MISSED, **FAST)]
    ordered = [*observers, *averages] if average == "last" else [*averages, *observers]
    saved = ModelCheckpoint(tmp_path / "saved", monitor="val_acc", mode="max", filename="{epoch}")
    trainer, module = run(tmp_path, before, *ordered, witness, saved)
    network = {name: value for name, value in before.at[3].items() if name.startswith("network")}
    if average != "none":
        network = {name: before.at[3][f"average/module.{name}"] for name in network}
    assert same({name: value for name, value in witness.at["end"].items() if name in network}, network)
    assert decisions(tmp_path) == [("before epoch 3", "accepted"), ("at the end", "returned")]
    assert not recipe_of(module).steps
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers|.*WeightAveraging")
        metrics = trainer.validate(module, DataLoader(data(50, 1), 50), verbose=False)
    assert metrics[0]["val_acc"] == witness.metric[3]
    assert read(tmp_path)["explainers"]["IntegratedGradients"]["similarity"] == pytest.approx(
        read(tmp_path)["guard"]["readings"][0]["numbers"]["similarity"], abs=0.2 if average != "none" else 1e-6
    )
    assert "-dense" in saved.best_model_path
    assert torch.load(saved.best_model_path, weights_only=True)["state_dict"]["network.4.bias"].shape == (16,)


def test_a_run_that_passes_is_untouched(tmp_path):
    found = []
    for name, guard in (("plain", None), ("guarded", RetentionMonitor(guard=MET, **(FAST | {"nulls": 12})))):
        witness = Witness()
        run(tmp_path / name, witness, Cut(1, 3), *([] if guard is None else [guard]))
        found.append(witness)
    plain, guarded = found
    assert all(same(plain.at[epoch], guarded.at[epoch]) for epoch in plain.at)
    assert plain.metric == guarded.metric
    assert [decision for _, decision in decisions(tmp_path / "guarded")] == ["accepted"] * 3
    assert read(tmp_path / "guarded")["guard"]["selected_by"] == "guard on validation"
    assert read(tmp_path / "guarded")["explainers"]["IntegratedGradients"]["paragraph"].endswith(
        "Selected by guard on validation."
    )


@SLOW
def test_pruning_stops_and_quantization_runs(tmp_path):
    cut = StructuredPruning(0.5, start_epoch=1, end_epoch=3, every_n_epochs=1, round_to=1, report_latency=False)
    quantize = QuantizationAwareTraining(start_epoch=4, calibration_batches=1)
    monitor = RetentionMonitor(guard={"similarity": ">=0.6"}, **FAST)
    # A network that has not learned yet: its explanations change far with every cut.
    _, module = run(tmp_path, cut, quantize, monitor, epochs=6)
    kinds = [step["kind"] for step in recipe_of(module).steps]
    readings = decisions(tmp_path)
    assert readings[0] == ("before epoch 1", "accepted")
    assert ("before epoch 4", "accepted") in readings or ("before epoch 4", "returned") in readings
    assert bool(cut.stopped) == ("returned" in [decision for _, decision in readings[:-1]])
    assert (kinds[-1:] == ["quantize"]) == (readings[-1] == ("at the end", "accepted"))


def test_quantization_is_undone(tmp_path):
    before = Witness()
    quantize = QuantizationAwareTraining(start_epoch=3, calibration_batches=1, bits=2)
    _, module = run(
        tmp_path, before, quantize, RetentionMonitor(guard={"retention": ">=0.9999"}, **(FAST | {"nulls": 12}))
    )
    assert decisions(tmp_path) == [("before epoch 3", "accepted"), ("at the end", "returned")]
    now = {name: value for name, value in before.at[3].items() if name.startswith("network")}
    assert same({k: v for k, v in module.state_dict().items() if k.startswith("network")}, now)
    missed = read(tmp_path)["guard"]["readings"][-1]
    assert "rounding to" in missed["level"]


@pytest.mark.parametrize("epoch", [pytest.param(epoch, marks=SLOW) if epoch != 2 else epoch for epoch in range(4)])
def test_a_resumed_run_decides_the_same(epoch, undone, tmp_path):
    folder, _, _, whole, _ = undone
    _, _, second, _ = undo(tmp_path, ckpt_path=folder / "saved" / f"epoch={epoch}.ckpt")
    # A buffer that no checkpoint holds starts anew in a resumed run.
    ends = [{name: value for name, value in one.at["end"].items() if name != "seen"} for one in (whole, second)]
    assert same(*ends)
    assert read(tmp_path)["guard"] == read(folder)["guard"]


@pytest.mark.parametrize(
    ("guard", "callbacks", "sentence"),
    [
        ({"val_ac": ">=0.1"}, [Cut(2)], r"guard\['val_ac'\] expected a metric .* Did you mean 'val_acc'"),
        ({"val_acc": ">=0.1"}, [Cut(0)], "expected a validation before the first structural step.*start_epoch=1"),
        ({"val_acc": ">=0.1"}, [], "expected a callback whose steps it can undo"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_first_cut(guard, callbacks, sentence, tmp_path):
    module = Module()
    with pytest.raises(Exception, match=sentence):
        run(tmp_path, *callbacks, RetentionMonitor(guard=guard, **FAST), module=module)
    assert not recipe_of(module).steps


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"reference expected 'dense'.*but got 'previous'"):
        RetentionMonitor("previous", guard=MET)
    with pytest.raises(ValueError, match=r"guard\['retention'\] expected a requirement"):
        RetentionMonitor(guard={"retention": "0.4"})


def test_a_damaged_state_is_refused(undone, tmp_path):
    good = torch.load(undone[0] / "saved" / "epoch=1.ckpt", weights_only=True)
    accepted = good["callbacks"]["RetentionMonitor"]["guard"]["accepted"]
    assert accepted["values"][0]["network.4.bias"].shape == (16,)
    for key, value in (("values", [{"network.4.bias": torch.zeros(3)}]), ("order", 3), ("optimizers", [3])):
        damaged = {**good["callbacks"]["RetentionMonitor"]["guard"], "accepted": {**accepted, key: value}}
        states = good["callbacks"] | {"RetentionMonitor": good["callbacks"]["RetentionMonitor"] | {"guard": damaged}}
        torch.save({**good, "callbacks": states}, tmp_path / "damaged.ckpt")
        with pytest.raises(ValueError, match="RetentionMonitor's state in the checkpoint"):
            undo(tmp_path / "again", ckpt_path=tmp_path / "damaged.ckpt")


@SLOW
def test_two_processes_decide_as_one(tmp_path):
    run_script(__file__.replace("test_guard", "ddp_guard"), tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert same(found[0]["end"], found[1]["end"])
    assert all(same(one["end"], one["accepted"]) for one in found)
    assert decisions(tmp_path) == [("before epoch 1", "accepted"), ("at the end", "returned")]


@SLOW
@pytest.mark.parametrize("average", [False, True])
def test_killed_and_resumed_decides_the_same(average, tmp_path):
    """With kill -9: after the cut, between cut and reading, while a checkpoint is written, after the return, later."""

    def run_jobs(*jobs):
        jobs = [{**job, "folder": str(tmp_path / job["folder"]), "average": average} for job in jobs]
        run_script(__file__.replace("test_guard", "kill_guard"), json.dumps(jobs), processes=1)

    kills = ("cut", "before", "save", "undone", "after")
    run_jobs({"folder": "whole"}, *({"folder": when, "when": when} for when in kills))
    assert not any((tmp_path / when / "final.pt").exists() for when in kills)
    assert [len(list((tmp_path / when).glob("*.ckpt"))) for when in kills] == [1, 2, 2, 3, 4]
    run_jobs(*({"folder": when} for when in kills))
    whole = torch.load(tmp_path / "whole" / "final.pt", weights_only=True)
    assert decisions(tmp_path / "whole")[:2] == [("before epoch 1", "accepted"), ("before epoch 3", "returned")]
    for when in kills:
        found = torch.load(tmp_path / when / "final.pt", weights_only=True)
        assert same(found["end"], whole["end"]), when
        assert (found["metric"], found["steps"]) == (whole["metric"], whole["steps"]), when
        assert read(tmp_path / when)["guard"] == read(tmp_path / "whole")["guard"], when

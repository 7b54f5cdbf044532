"""Lightning's own features beside each callback: the table in docs/neighbours.md, cell by cell."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import BatchSizeFinder, OnExceptionCheckpoint, device_stats_monitor
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities import CombinedLoader
from neighbours import MAKE, ROWS, SAMPLES, WIDTH, Module, Neighbour, Rows, Stop

import lit_xai
from lit_xai import ModelExport, QuantizationAwareTraining, StructuredPruning
from lit_xai.functional import attribute, prune_step
from lit_xai.quantization.quantization import is_quantized
from lit_xai.recipe import take_step_
from lit_xai.structure.recipe import recipe_of

pytestmark = pytest.mark.filterwarnings("ignore:.*slower than", "ignore:.*ModelExport")


def table() -> dict[str, dict[str, str]]:
    page = (Path(__file__).parents[2] / "docs" / "neighbours.md").read_text()
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"
    ]
    return {name: dict(zip(header[1:], cells, strict=True)) for name, *cells in lines}


TABLE = table()
WORKING = {name: [column for column in MAKE if TABLE[name][column] == "works"] for name in TABLE}
REFUSED = [(name, column) for name in TABLE for column in MAKE if TABLE[name][column] == "refused"]
EXPORTED = ("`EMAWeightAveraging`", "`StochasticWeightAveraging`")
"""Rows whose export differs from any other run's; of the others it is a slow test."""
OWN = {
    "`Tuner.scale_batch_size`": "test_a_tuner",
    "`Tuner.lr_find`": "test_a_tuner",
    "`OnExceptionCheckpoint`": "test_a_checkpoint_of_an_exception_continues_the_run",
    "`module.compile()`": "test_a_compiled_module",
    "`fast_dev_run`": "test_a_dry_run_writes_nothing",
    "`CombinedLoader`": "test_combined_loaders",
}
"""The tests of rows that more than one run tells about."""


def trainer_of(folder, callbacks, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    if options.pop("logger", False):
        options["logger"] = CSVLogger(folder / "logs")
    options = {"max_epochs": 4, "logger": False, "enable_checkpointing": False} | options
    return Trainer(callbacks=callbacks, default_root_dir=folder, **quiet, **options)


def fit(folder, columns, row, module=None, first=False, ckpt_path=None):
    seed_everything(0, verbose=False)
    module, theirs = module or Module(), row.callbacks(folder)
    ours = [MAKE[column](folder) for column in columns]
    trainer = trainer_of(folder, [*ours, *theirs] if first else [*theirs, *ours], **row.options)
    trainer.fit(module, datamodule=Rows(row.batch_size), ckpt_path=ckpt_path)
    return trainer, module, theirs


def check(folder, columns, trainer, module):
    """Each callback has done its work, and what is saved is what is there."""
    kinds = ["prune"] * ("StructuredPruning" in columns) + ["quantize"] * ("QuantizationAwareTraining" in columns)
    assert [step["kind"] for step in recipe_of(module).steps] == kinds
    assert is_quantized(module) == ("quantize" in kinds)
    assert (module.head[0].out_features < WIDTH) == ("prune" in kinds)
    held = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    if "AttributionMonitor" in columns:
        saved = sorted(folder.rglob("attributions.npz"))
        assert saved
        assert all(np.load(path)["attributions"].std() > 0 for path in saved)
    if "KnowledgeDistillation" in columns:
        assert any(name.startswith("distillation/") for name in trainer.callback_metrics)
    assert (folder / "export" / "model.onnx").exists() == ("ModelExport" in columns)
    trainer.save_checkpoint(folder / "end.ckpt")
    loaded = lit_xai.load_from_checkpoint(Module, folder / "end.ckpt")
    state = module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_the_table_has_a_test_for_each_row():
    assert set(TABLE) == {*ROWS, *OWN}
    assert all(set(cells.values()) <= {"works", "refused"} for cells in TABLE.values())
    assert set(OWN.values()) <= set(globals())


@pytest.fixture
def device_stats(monkeypatch):
    """Statistics without psutil, which a CPU's need."""
    monkeypatch.setattr(device_stats_monitor, "_PSUTIL_AVAILABLE", True)
    monkeypatch.setattr(CPUAccelerator, "get_device_stats", lambda self, device: {"load": 0.5})


CASES = [
    pytest.param(
        *(name, exports),
        id=f"{name.strip('`')}{'-export' if exports else ''}",
        marks=[
            *(pytest.mark.filterwarnings(f"ignore:{message}") for message in ROWS[name].ignored),
            *([pytest.mark.slow] if exports and name not in EXPORTED else []),
        ],
    )
    for name in ROWS
    for exports in (False, True)
    if exports or name not in EXPORTED
]


@pytest.mark.parametrize(("name", "exports"), CASES)
def test_it_works_with_all_that_it_can(name, exports, tmp_path, device_stats):
    columns = [column for column in WORKING[name] if exports or column != "ModelExport"]
    trainer, module, theirs = fit(tmp_path, columns, ROWS[name], first=exports)
    check(tmp_path, columns, trainer, module)
    ROWS[name].check(tmp_path, trainer, module, theirs)


@pytest.mark.parametrize(("name", "column"), REFUSED, ids=lambda value: value.strip("`"))
def test_what_cannot_be_is_refused_before_the_first_step(name, column, tmp_path):
    module, row = Module(), ROWS.get(name, Neighbour())
    if name == "`module.compile()`":
        module.compile(backend="eager")
    with pytest.raises(Exception, match=column) as caught:
        fit(tmp_path, [column], row, module)
    assert "\n" not in str(caught.value)
    assert module.steps == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# --- tuners -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["lr_find", "scale_batch_size"])
def test_a_tuner(what, tmp_path):
    columns = [*MAKE][:-1]
    module, data = Module(), Rows(4)
    trainer = trainer_of(tmp_path, [MAKE[column](tmp_path) for column in columns])
    if what == "lr_find":
        rate = Tuner(trainer).lr_find(module, datamodule=data, min_lr=1e-4, max_lr=0.1, num_training=30).suggestion()
        assert module.lr == rate != 0.01
    else:
        size = Tuner(trainer).scale_batch_size(module, datamodule=data, max_trials=2, steps_per_trial=1, init_val=4)
        assert data.batch_size == size == 8
    # Nothing of the trial remains: no step of a recipe, no file of a callback, no method of ours on the module.
    assert recipe_of(module).steps == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not {"training_step", "on_save_checkpoint", "load_state_dict"} & set(vars(module))
    seed_everything(0, verbose=False)
    trainer.fit(module, datamodule=data)
    check(tmp_path, columns, trainer, module)
    assert trainer.global_step == 4 * SAMPLES // data.batch_size


@pytest.mark.parametrize("first", [True, False])
def test_a_trial_decides_nothing(first, tmp_path):
    """What tuners save before the run and load after their trials is no run to resume: widths are chosen as ever."""

    def widths(*others):
        seed_everything(0, verbose=False)
        pruning = StructuredPruning(target_params=0.8, start_epoch=1, end_epoch=1, report_latency=False)
        module = Module()
        trainer = trainer_of(tmp_path, [*others, pruning] if first else [pruning, *others], max_epochs=2)
        trainer.fit(module, datamodule=Rows())
        return module.head[0].out_features

    plain = widths()
    assert plain % 8  # the default of a target: the widest multiple that meets it, and 8 would not
    assert widths(BatchSizeFinder(max_trials=1, steps_per_trial=1, init_val=16)) == plain


def test_a_trial_makes_no_folder_the_runs_own(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.onnx").write_text("of another run")
    callbacks = [BatchSizeFinder(max_trials=1, steps_per_trial=1, init_val=16), ModelExport(tmp_path / "export")]
    with pytest.raises(Exception, match="without an earlier export"):
        trainer_of(tmp_path, callbacks, max_epochs=1).fit(Module(), datamodule=Rows())
    assert (tmp_path / "export" / "model.onnx").read_text() == "of another run"


# --- exceptions, compilation ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fit.ckpt_path=", "ignore:You.re resuming from a checkpoint that ended before")
def test_a_checkpoint_of_an_exception_continues_the_run(tmp_path):
    columns = [*MAKE][:-1]
    module = Module()
    row = Neighbour(lambda folder: [OnExceptionCheckpoint(folder, "stopped"), Stop()], {"enable_checkpointing": True})
    with pytest.raises(KeyError, match="stop"):
        fit(tmp_path, columns, row, module)
    path = tmp_path / "stopped.ckpt"
    state = torch.load(path, weights_only=True)["callbacks"]
    assert state["StructuredPruning"]["done"] == [1]
    loaded = lit_xai.load_from_checkpoint(Module, path)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert state["StructuredPruning"]["round_to"] < 16  # of the target, not the first that is tried
    again = Module()
    trainer, *_ = fit(tmp_path, columns, Neighbour(), again, ckpt_path=path)
    check(tmp_path, columns, trainer, again)
    assert recipe_of(again).steps[0] == recipe_of(module).steps[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_module(tmp_path):
    torch.compiler.reset()
    columns = [column for column in WORKING["`module.compile()`"] if column != "ModelExport"]
    # A compiled training_step is refused by KnowledgeDistillation, a compiled network is not.
    module = Module()
    module.backbone.compile(backend="eager")
    trainer, module, _ = fit(tmp_path, columns, Neighbour(), module)
    check(tmp_path, columns, trainer, module)
    torch.compiler.reset()


@pytest.mark.parametrize("quantizes", [False, True])
def test_a_dry_run_writes_nothing(quantizes, tmp_path):
    """With starts as fractions, as by default: an integer past the only epoch is refused as in any run."""
    module = Module()
    others = [MAKE[column](tmp_path) for column in ("AttributionMonitor", "KnowledgeDistillation", "ModelExport")]
    callbacks = [QuantizationAwareTraining()] if quantizes else [*others, StructuredPruning(0.5)]
    trainer_of(tmp_path, callbacks, fast_dev_run=True).fit(module, datamodule=Rows())
    assert module.steps == 1
    assert [step["kind"] for step in recipe_of(module).steps] == ["quantize" if quantizes else "prune"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# --- loaders and loops ------------------------------------------------------------------------------------------------


class Paired(Module):
    """Learns from the batches of two loaders."""

    def training_step(self, batch, batch_idx):
        if isinstance(batch, dict):
            return sum(super(Paired, self).training_step(one, batch_idx) for one in batch.values() if one is not None)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle"])
def test_combined_loaders(mode, tmp_path):
    columns = [*MAKE][:-1]
    seed_everything(0, verbose=False)
    module, data = Paired(), Rows()
    loader = CombinedLoader({"a": data.train_dataloader(), "b": data.train_dataloader()}, mode)
    trainer = trainer_of(tmp_path, [MAKE[column](tmp_path) for column in columns])
    trainer.fit(module, loader, data.val_dataloader())
    check(tmp_path, columns, trainer, module)


def test_a_loop_of_fabric():
    fabric = Fabric(accelerator="cpu", devices=1)
    bare = Module()
    network = torch.nn.Sequential(*bare.backbone, *bare.head)
    model, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), 0.1, momentum=0.9))
    x, y = Rows().data.tensors

    def step():
        optimizer.zero_grad()
        fabric.backward(torch.nn.functional.cross_entropy(model(x), y))
        optimizer.step()

    step()
    take_step_(network, prune_step(network, x[:1], pruning_ratio=0.5), [optimizer.optimizer])
    assert network[0].out_features == 8
    before = network[0].weight.detach().clone()
    step()
    assert not torch.equal(network[0].weight, before)
    assert optimizer.optimizer.state[network[0].weight]["momentum_buffer"].shape == (8, 8)
    assert attribute(model, x[:4], method="InputXGradient", target=y[:4]).std() > 0

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.trainer import access as _trainer
from lit_xai.trainer.access import is_a, logged_step, require_writable, run_folder

pytestmark = [
    # Lightning recommends loader workers to everyone; ten rows in memory need none.
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    # Lightning 2.6 builds its loaders with a class that torch 2.13 deprecates.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
]


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(request.param)


@pytest.mark.parametrize("name", ["TensorBoardLogger", "CSVLogger"])
def test_is_a_knows_the_classes_of_both_packages(pl: ModuleType, tmp_path: Path, name: str) -> None:
    logger_class = getattr(pl.loggers, name)
    derived = type("Derived", (logger_class,), {})
    for logger in (logger_class(tmp_path), derived(tmp_path)):
        assert is_a(logger, name)
        assert is_a(logger, "MLFlowLogger", name)
        assert not is_a(logger, "MLFlowLogger")
    assert is_a(pl.callbacks.ModelCheckpoint(), "ModelCheckpoint")
    assert is_a(pl.callbacks.WeightAveraging(), "WeightAveraging")


def test_is_a_leaves_classes_of_other_packages_out() -> None:
    lookalike = type("TensorBoardLogger", (), {"__module__": "lightning_bolts.loggers"})
    assert not is_a(lookalike(), "TensorBoardLogger")


class Witness(Callback):
    """Logs, as a scalar's value, the step we say that Lightning will log that scalar at."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.at_start = logged_step(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        pl_module.log("batch", float(logged_step(trainer)))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("train_epoch", float(logged_step(trainer)))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("validation_epoch", float(logged_step(trainer)))

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("test_epoch", float(logged_step(trainer)))


def make_module(pl: ModuleType, manual: bool = False) -> Any:
    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = not manual
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            loss = self.layer(batch[0]).square().mean()
            for optimizer in self.optimizers() if manual else []:
                optimizer.zero_grad()
                self.manual_backward(loss, retain_graph=True)
                optimizer.step()
            return loss

        def validation_step(self, batch: list[torch.Tensor]) -> None: ...

        test_step = validation_step

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.SGD(self.layer.parameters(), lr=0.01) for _ in range(1 + manual)]

    return Line()


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(10.0)[:, None]), batch_size=1)


def test_the_private_names_we_read_are_there(pl: ModuleType) -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False)
    assert trainer.fit_loop.epoch_loop._batches_that_stepped == 0
    assert pl.LightningModule()._current_fx_name is None
    assert pl.utilities.rank_zero_only is rank_zero_only  # one object for both packages: it knows the rank under either


def make_trainer(pl: ModuleType, root: Path, **options: Any) -> Any:
    options = {"logger": pl.loggers.TensorBoardLogger(root), "max_epochs": 2, "enable_checkpointing": False} | options
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=root,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def scalars(trainer: Any) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(trainer.logger.log_dir).Reload()
    # Sorted: fit, validate and test write a file each, and files of one second are read in any order.
    return {tag: sorted((e.step, e.value) for e in events.Scalars(tag)) for tag in events.Tags()["scalars"]}


def steps(points: list[tuple[int, float]]) -> list[int]:
    return [step for step, _ in points]


def values(points: list[tuple[int, float]]) -> list[float]:
    return [value for _, value in points]


@pytest.mark.parametrize(
    ("options", "manual", "train_epochs", "validation_epochs"),
    [
        pytest.param({}, False, [9, 19], [9, 19], id="plain"),
        pytest.param({"num_sanity_val_steps": 0}, False, [9, 19], [9, 19], id="no sanity check"),
        pytest.param({"accumulate_grad_batches": 3}, False, [3, 7], [3, 7], id="accumulation"),
        pytest.param({"val_check_interval": 4}, False, [9, 19], [3, 7, 13, 17], id="validation within the epoch"),
        pytest.param(
            {"val_check_interval": 4, "accumulate_grad_batches": 3},
            False,
            [3, 7],
            [1, 2, 5, 6],
            id="validation while accumulating",
        ),
        pytest.param({"max_steps": 13, "max_epochs": -1}, False, [9, 12], [9], id="stopped mid-epoch"),
        pytest.param({}, True, [9, 19], [9, 19], id="two optimizers"),
    ],
)
def test_logged_step_is_the_step_of_lightnings_own_scalars(
    pl: ModuleType,
    tmp_path: Path,
    options: dict[str, Any],
    manual: bool,
    train_epochs: list[int],
    validation_epochs: list[int],
) -> None:
    module, witness = make_module(pl, manual), Witness()
    rates = pl.callbacks.LearningRateMonitor(logging_interval="epoch")  # logs as an epoch starts
    trainer = make_trainer(pl, tmp_path, callbacks=[witness, rates], **options)
    trainer.fit(module, loader(), loader())
    trainer.validate(module, loader(), verbose=False)
    trainer.test(module, loader(), verbose=False)

    logged = scalars(trainer)
    for tag in ("batch", "train_epoch", "validation_epoch", "test_epoch"):
        assert steps(logged[tag]) == values(logged[tag]), tag
    assert steps(logged["train_epoch"]) == train_epochs
    after_fit = train_epochs[-1] + 1
    assert steps(logged["validation_epoch"]) == [*validation_epochs, after_fit]
    assert steps(logged["test_epoch"]) == [after_fit]
    assert witness.at_start == steps(logged["lr-SGD-1" if manual else "lr-SGD"])[0] == 0


@pytest.mark.parametrize("limit", [{"max_epochs": 2}, {"max_epochs": -1, "max_steps": 20}], ids=["epochs", "steps"])
@pytest.mark.parametrize("saved_in", ["on_train_epoch_end", "on_validation_end"])
def test_logged_step_after_a_resume(pl: ModuleType, tmp_path: Path, limit: dict[str, int], saved_in: str) -> None:
    saver, checkpoint = Callback(), tmp_path / "resume.ckpt"
    setattr(saver, saved_in, lambda trainer, _: trainer.save_checkpoint(checkpoint))
    make_trainer(pl, tmp_path, max_epochs=1, callbacks=[saver]).fit(make_module(pl), loader(), loader())

    witness = Witness()
    trainer = make_trainer(pl, tmp_path, callbacks=[witness], **limit)
    trainer.fit(make_module(pl), loader(), loader(), ckpt_path=checkpoint)
    logged = scalars(trainer)
    for tag in ("batch", "train_epoch", "validation_epoch"):
        assert steps(logged[tag]) == values(logged[tag]), tag
    # Lightning counts the last batch before a validation once the loop is running again.
    assert witness.at_start == {"on_train_epoch_end": 10, "on_validation_end": 9}[saved_in]


class Anywhere:
    """A logger of somebody's own, made for either package: it writes no folder and calls its runs by number."""

    save_dir, name, version = None, "mine", 3

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None: ...

    def log_hyperparams(self, params: dict[str, Any]) -> None: ...


LOGGERS: dict[str, tuple[Callable[[ModuleType, Path], Any], str]] = {
    "none": (lambda pl, root: False, "."),
    "default": (lambda pl, root: True, "lightning_logs/version_0"),
    "tensorboard": (lambda pl, root: pl.loggers.TensorBoardLogger(root, name="tb", version="a"), "tb/a"),
    "tensorboard in a folder of its own": (
        lambda pl, root: pl.loggers.TensorBoardLogger(root, name="", version=7, sub_dir="events"),
        "version_7/events",
    ),
    "csv": (lambda pl, root: pl.loggers.CSVLogger(root, name="csv"), "csv/version_0"),
    "own": (lambda pl, root: type("Own", (Anywhere, pl.loggers.Logger), {})(), "mine/version_3"),
    "own, then csv": (
        lambda pl, root: [type("Own", (Anywhere, pl.loggers.Logger), {})(), pl.loggers.CSVLogger(root, name="csv")],
        "csv/version_0",
    ),
    "remote, then csv": (
        lambda pl, root: [pl.loggers.TensorBoardLogger("memory://runs"), pl.loggers.CSVLogger(root, name="csv")],
        "csv/version_0",
    ),
}


@pytest.mark.parametrize(("make_logger", "folder"), LOGGERS.values(), ids=LOGGERS)
def test_run_folder(
    pl: ModuleType, tmp_path: Path, make_logger: Callable[[ModuleType, Path], Any], folder: str
) -> None:
    trainer = make_trainer(pl, tmp_path, logger=make_logger(pl, tmp_path))
    assert run_folder(trainer) == tmp_path / folder


@pytest.mark.parametrize("name", ["none", "default", "tensorboard", "csv", "own"])
def test_run_folder_is_where_the_checkpoints_are(pl: ModuleType, tmp_path: Path, name: str) -> None:
    checkpoint = pl.callbacks.ModelCheckpoint()
    trainer = make_trainer(
        pl,
        tmp_path,
        logger=LOGGERS[name][0](pl, tmp_path),
        callbacks=[checkpoint],
        enable_checkpointing=True,
        max_epochs=1,
        limit_train_batches=1,
    )
    trainer.fit(make_module(pl), loader(), loader())
    assert Path(checkpoint.dirpath) == run_folder(trainer) / "checkpoints"


def test_run_folder_refuses_a_remote_one(pl: ModuleType) -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, default_root_dir="memory://runs")
    with pytest.raises(
        MisconfigurationException, match=r"must be on a local disk, but got 'memory://runs': set `Trainer"
    ):
        run_folder(trainer)


RANKS = """
import os, sys
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lit_xai.trainer.access import run_folder

class Tell(Callback):
    def setup(self, trainer, pl_module, stage):
        open(f"{trainer.default_root_dir}/{trainer.global_rank}.txt", "w").write(str(run_folder(trainer)))

class Own(CSVLogger):  # names its run in each process anew, as MLflow's and WandB's servers do
    version = property(lambda self: f"run-{os.getpid()}")

if __name__ == "__main__":
    Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", max_steps=1, logger=Own(sys.argv[1]), callbacks=[Tell()],
        default_root_dir=sys.argv[1], enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(BoringModel())
"""


def test_run_folder_is_the_same_on_every_rank(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(RANKS)
    environment = os.environ | {"PYTHONPATH": str(Path(_trainer.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, str(tmp_path / "ranks.py"), str(tmp_path)], check=True, env=environment, timeout=120
    )
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    assert Path(first).parent == tmp_path / "lightning_logs"


def test_require_writable_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    require_writable(tmp_path / "runs" / "version_0")
    require_writable(tmp_path / "runs" / "version_0")
    assert list((tmp_path / "runs" / "version_0").iterdir()) == []


def test_require_writable_refuses_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file in the way")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "runs", Path("/proc/runs")):
        with pytest.raises(OSError, match=r"^The run's folder must be writable, but got '") as caught:
            require_writable(folder)
        assert str(folder) in str(caught.value)
        assert str(caught.value).count("\n") == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_require_writable_refuses_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission denied"):
        require_writable(tmp_path)

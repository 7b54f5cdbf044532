import csv
import io
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.trainer.access import logged_step, run_folder
from lit_xai.trainer.logging import log_files, log_image, log_scalars

TAG = "attribution/IntegratedGradients (fc1, label)"  # brackets and a comma: more than MLflow takes in a name

pytestmark = [
    # Lightning recommends loader workers to everyone; ten rows in memory need none.
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    # Lightning 2.6 builds its loaders with a class that torch 2.13 deprecates.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
]


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(request.param)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # the logger sets it for the whole process: undone after the test
    return import_module("mlflow")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    for variable in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb = import_module("wandb")
    yield wandb
    wandb.finish()
    wandb.teardown()  # ends the service process, which would live as long as this one


def make_trainer(pl: ModuleType, root: Path, logger: Any, **options: Any) -> Any:
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=root,
        logger=logger,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def draw(folder: Path, seed: int = 0) -> tuple[np.ndarray, Path]:
    image = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    png = folder / f"{seed}.png"
    Image.fromarray(image).save(png)
    return image, png


def read_images(logger: Any, tag: str) -> dict[int, np.ndarray]:
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    return {e.step: np.asarray(Image.open(io.BytesIO(e.encoded_image_string))) for e in events.Images(tag)}


def test_tensorboard(pl: ModuleType, tmp_path: Path) -> None:
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    trainer = make_trainer(pl, tmp_path, logger)
    pictures = {step: draw(tmp_path, step) for step in (9, 19)}
    for step, (image, png) in pictures.items():
        log_image(trainer, TAG, image, step, png)
    logger.finalize("success")
    shown = read_images(logger, TAG)
    assert shown.keys() == pictures.keys()
    assert all(np.array_equal(shown[step], image) for step, (image, _) in pictures.items())


def test_mlflow(pl: ModuleType, tmp_path: Path, mlflow: ModuleType) -> None:
    logger = pl.loggers.MLFlowLogger(save_dir=str(tmp_path / "mlruns"))
    trainer = make_trainer(pl, tmp_path, logger)
    image, png = draw(tmp_path)
    log_image(trainer, TAG, image, 9, png)
    log_scalars(trainer, {"compression/macs": 2.5}, 9)
    log_files(trainer, [png], "report")
    [stored] = logger.experiment.list_artifacts(logger.run_id, "report")
    assert stored.path == f"report/{png.name}"

    artifacts = tmp_path / "mlruns" / logger.experiment_id / logger.run_id / "artifacts" / "images"
    [shown] = artifacts.glob("attribution~IntegratedGradients _fc1_ label_+step+9+*.png")
    assert np.array_equal(np.asarray(Image.open(shown)), image)
    [metric] = logger.experiment.get_metric_history(logger.run_id, "compression/macs")
    assert (metric.step, metric.value) == (9, 2.5)
    assert run_folder(trainer) == tmp_path / "mlruns" / logger.experiment_id / logger.run_id


def test_wandb(tmp_path: Path, wandb: ModuleType) -> None:
    run = None
    for package, step in (
        ("lightning.pytorch", 9),
        ("pytorch_lightning", 19),
    ):  # one service for both: it starts slowly
        pl = import_module(package)
        logger = pl.loggers.WandbLogger(save_dir=tmp_path, offline=True, experiment=run)
        run = logger.experiment
        trainer = make_trainer(pl, tmp_path, logger)
        image, png = draw(tmp_path, step)
        log_image(trainer, TAG, image, step, png)
        assert run.summary["trainer/global_step"] == step
        [shown] = run.summary[TAG]["filenames"]
        assert (Path(run.dir) / shown).read_bytes() == png.read_bytes()
        log_scalars(trainer, {"compression/macs": 2.5}, step + 1)
        assert run.summary["compression/macs"] == 2.5
        assert run.summary["trainer/global_step"] == step + 1
        log_files(trainer, [png], "report")  # a failure would be a warning
        assert run_folder(trainer) == tmp_path / "lightning_logs" / run.id


class Mind(Callback):
    """Shows a picture and a number at the end of each epoch, where Lightning logs the loss."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            step, folder = logged_step(trainer), run_folder(trainer)
            image, png = draw(folder, step)
            log_image(trainer, TAG, image, step, png)
            log_scalars(trainer, {"compression/macs": float(step)}, step)


def fit(pl: ModuleType, trainer: Any) -> None:
    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            return self.layer(batch[0]).square().mean()

        def validation_step(self, batch: list[torch.Tensor]) -> None:
            self.log("loss", 0.0)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    loader = DataLoader(TensorDataset(torch.ones(10, 1)))
    trainer.fit(Line(), loader, loader)


def test_several_loggers_on_one_axis(pl: ModuleType, tmp_path: Path, mlflow: ModuleType) -> None:
    mlf = pl.loggers.MLFlowLogger(save_dir=str(tmp_path / "mlruns"))
    board, table = pl.loggers.TensorBoardLogger(tmp_path), pl.loggers.CSVLogger(tmp_path / "csv")
    trainer = make_trainer(pl, tmp_path, [mlf, table, board], max_epochs=2, callbacks=[Mind()])
    fit(pl, trainer)

    assert run_folder(trainer) == Path(table.log_dir)
    assert {png.name for png in run_folder(trainer).glob("*.png")} == {"9.png", "19.png"}
    assert list(read_images(board, TAG)) == [9, 19]
    events = EventAccumulator(board.log_dir).Reload()
    for tag in ("loss", "compression/macs"):
        assert [e.step for e in events.Scalars(tag)] == [9, 19]
        assert [m.step for m in mlf.experiment.get_metric_history(mlf.run_id, tag)] == [9, 19]
    images = mlf.experiment.list_artifacts(mlf.run_id, "images")
    assert {re.findall(r"[+]step[+](\d+)[+]", image.path)[0] for image in images} == {"9", "19"}
    rows = list(csv.DictReader((Path(table.log_dir) / "metrics.csv").read_text().splitlines()))
    assert [row["step"] for row in rows if row["compression/macs"]] == ["9", "19"]


def test_no_logger(pl: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(pl, tmp_path, False, max_epochs=1, callbacks=[Mind()])
    fit(pl, trainer)
    assert [png.name for png in tmp_path.glob("*.png")] == ["9.png"]
    assert "PNG" not in caplog.text


@pytest.mark.parametrize("fast_dev_run", [False, True])
def test_loggers_that_need_no_notice(
    pl: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, fast_dev_run: bool
) -> None:
    trainer = make_trainer(pl, tmp_path, pl.loggers.CSVLogger(tmp_path), fast_dev_run=fast_dev_run)
    assert isinstance(trainer.logger, pl.loggers.CSVLogger) != fast_dev_run  # a dry run puts a dummy in its place
    image, png = draw(tmp_path)
    log_image(trainer, TAG, image, 9, png)
    assert "PNG" not in caplog.text


def make_own(pl: ModuleType) -> Any:
    """A logger of somebody's own that shows no images, writes no numbers and cannot be put into a set."""

    def log_metrics(self: Any, metrics: dict[str, float], step: int | None = None) -> None:
        raise OSError("disk full")

    names = {"log_metrics": log_metrics, "log_hyperparams": None, "name": "own", "version": 0, "__hash__": None}
    return type("Own", (pl.loggers.Logger,), names)()


def test_a_logger_without_images_is_named_once(
    pl: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image, png = draw(tmp_path)
    for _ in range(2):
        caplog.clear()
        trainer = make_trainer(pl, tmp_path, make_own(pl))
        for step in (9, 19):
            log_image(trainer, TAG, image, step, png)
        assert caplog.text.count(f"Own cannot show images: they are PNG files in '{tmp_path}'.") == 1


def test_a_logger_that_fails_warns_once_and_stops_nothing(pl: ModuleType, tmp_path: Path) -> None:
    board = type("Full", (pl.loggers.TensorBoardLogger,), {"experiment": property(lambda self: 1 / 0)})
    table = pl.loggers.CSVLogger(tmp_path)
    trainer = make_trainer(pl, tmp_path, [board(tmp_path), make_own(pl), table])
    image, png = draw(tmp_path)
    with pytest.warns(UserWarning, match=r"Full failed to log \(ZeroDivisionError: .*\): training continues"):
        log_image(trainer, TAG, image, 9, png)
    with pytest.warns(UserWarning, match=r"Own failed to log \(OSError: disk full\): training continues"):
        log_scalars(trainer, {"compression/macs": 2.5}, 9)
    log_image(trainer, TAG, image, 19, png)
    log_scalars(trainer, {"compression/macs": 1.5}, 19)
    assert [row["step"] for row in table.experiment.metrics] == [9, 19]

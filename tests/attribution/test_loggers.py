"""The monitor with each logger's real package, several at once, and none."""

import json

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.callbacks import AttributionMonitor

PACKAGES = pytest.mark.parametrize("package", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pl"])


def fit(package, folder, logger):
    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = package.Trainer(
        max_epochs=2,
        logger=logger,
        callbacks=[AttributionMonitor(on_error="raise")],
        default_root_dir=folder,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    data = TensorDataset(torch.randn(16, 1, 8, 8), torch.arange(16) % 10)
    trainer.fit(Module(), DataLoader(data, batch_size=8))


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    """Loggers leave caches and settings behind; all of it belongs into the test's folder."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # the logger sets it for the whole process
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


@PACKAGES
def test_no_logger(package, tmp_path):
    fit(package, tmp_path, False)
    assert len(list((tmp_path / "attribution").rglob("figure.png"))) == 2


@PACKAGES
def test_csv_and_tensorboard_at_once(package, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [package.loggers.CSVLogger(tmp_path, "csv"), package.loggers.TensorBoardLogger(tmp_path, "tb")]
    fit(package, tmp_path, loggers)
    assert len(list((tmp_path / "csv").rglob("figure.png"))) == 2
    assert "attribution/IntegratedGradients/convergence_delta" in next(tmp_path.rglob("metrics.csv")).read_text()
    events = EventAccumulator(str(tmp_path / "tb" / "version_0"), size_guidance={"images": 0}).Reload()
    images = events.Images("attribution/IntegratedGradients")
    numbers = events.Scalars("attribution/IntegratedGradients/convergence_delta")
    assert [p.step for p in images] == [n.step for n in numbers] == [1, 3]
    assert images[0].width == 700


@PACKAGES
def test_mlflow(package, tmp_path):
    fit(package, tmp_path, package.loggers.MLFlowLogger("test", tracking_uri=f"file:{tmp_path / 'mlruns'}"))
    assert len([path for path in tmp_path.rglob("artifacts/**/*.png") if "attribution" in str(path)]) >= 2
    assert list(tmp_path.rglob("metrics/attribution/IntegratedGradients/convergence_delta"))


def test_wandb(tmp_path):
    import wandb

    fit(lightning.pytorch, tmp_path, lightning.pytorch.loggers.WandbLogger("test", save_dir=tmp_path, offline=True))
    try:
        summary = wandb.run.summary
        assert summary["attribution/IntegratedGradients"]["_type"] in ("images/separated", "image-file")
        assert json.dumps(dict(summary), default=str)
        assert len(list(tmp_path.rglob("wandb/**/media/images/**/*.png"))) == 2
    finally:
        wandb.finish()
        wandb.teardown()

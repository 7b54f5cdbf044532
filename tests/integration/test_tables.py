"""A table in one run: everything that shrinks and everything that explains, and again from a checkpoint."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lit_xai import (
    AttributionMonitor,
    KnowledgeDistillation,
    ModelExport,
    PartialDependence,
    QuantizationAwareTraining,
    RetentionMonitor,
    StructuredPruning,
    SurrogateTree,
)
from lit_xai.data import Table, TableDataModule
from lit_xai.models import MLP, Classifier

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning",  # networks this small do not gain from integers
)


def people():
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=400) for name in ("age", "hours", "height", "weight")}
    columns["job"] = rng.choice(["cook", "nurse", "pilot"], 400)
    rich = (columns["age"] > 0) & (columns["job"] != "cook")
    table = Table.from_columns(columns, rich.astype(int), ["low", "high"])
    return TableDataModule.from_table(table, batch_size=64)


def run(folder, version, checkpoint=None):
    seed_everything(0, verbose=False)
    model = Classifier(MLP(7, [64, 32], 2), num_classes=2)
    callbacks = [
        StructuredPruning(target_macs=0.4, start_epoch=1, end_epoch=2, report_latency=False),
        KnowledgeDistillation("dense"),
        QuantizationAwareTraining(start_epoch=3),
        ModelExport(),
        AttributionMonitor(probe=20, on_error="raise"),
        RetentionMonitor(n=32, nulls=2, time_share=1.0, on_error="raise"),
        SurrogateTree(leaves=4, on_labels=True),
        PartialDependence(n=50, points=5),
        ModelCheckpoint(folder / "kept", filename="{epoch}", save_top_k=-1, save_last=True),
    ]
    trainer = Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=version),
        callbacks=callbacks,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=people(), ckpt_path=checkpoint)
    return model


@pytest.mark.slow
def test_all_in_one_run_and_resumed(tmp_path):
    whole = run(tmp_path, "whole")
    folder = tmp_path / "whole"
    metrics = (folder / "metrics.csv").read_text().partition("\n")[0]
    for name in ("retention/reasons_changed", "surrogate/fidelity", "retention/similarity/IntegratedGradients"):
        assert name in metrics
    for place in ("attribution/IntegratedGradients", "surrogate", "dependence"):
        assert (folder / place / "epoch=4" / "figure.png").exists()
    assert list(folder.rglob("*int8*.onnx"))
    resumed = run(tmp_path, "resumed", tmp_path / "kept" / "epoch=2.ckpt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name

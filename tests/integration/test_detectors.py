"""Detectors under each callback at its defaults: batches of lists, losses in training, boxes in evaluation."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from step_modules import ListDetector, QueryDetector, StackDetector
from torch.utils.data import DataLoader

from lit_xai import AttributionMonitor, KnowledgeDistillation, ModelExport, QuantizationAwareTraining, StructuredPruning
from lit_xai.network.profiling import count_parameters


def _sample(i: int) -> tuple[Any, Any, str]:
    torch.manual_seed(i)
    n = i % 3 + 1
    return torch.rand(3, 8, 8), {"boxes": torch.rand(n, 4), "labels": torch.randint(3, (n,))}, f"{i}.png"


def _lists(found: list[Any]) -> Any:
    return tuple(list(part) for part in zip(*found, strict=True))


def _dict(found: list[Any]) -> Any:
    pictures, targets, _ = _lists(found)
    rest = {"box": [one["boxes"] for one in targets], "kind": [one["labels"] for one in targets]}
    return {"image": torch.stack(pictures), **rest}


def _queries(found: list[Any]) -> Any:
    pictures, targets, _ = _lists(found)
    return {"pixel_values": torch.stack(pictures), "labels": targets}


class EvaluatedList(ListDetector):
    def validation_step(self, batch, batch_idx):
        self.net(batch[0])


class EvaluatedStack(StackDetector):
    def validation_step(self, batch, batch_idx):
        self(batch["image"])


class EvaluatedQuery(QueryDetector):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))


DETECTORS = {"list": (EvaluatedList, _lists), "stack": (EvaluatedStack, _dict), "query": (EvaluatedQuery, _queries)}


def trained(name: str, tmp_path: Any, callbacks: list[Any]) -> Any:
    make, collate = DETECTORS[name]
    seed_everything(0, verbose=False)
    module = make()
    loaders = [DataLoader([_sample(i) for i in range(8)], batch_size=4, collate_fn=collate) for _ in range(2)]
    trainer = Trainer(
        max_epochs=3, accelerator="cpu", callbacks=callbacks, default_root_dir=tmp_path, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes of batches, and rates that a toy does not recover from
        trainer.fit(module, *loaders)
    return module


@pytest.mark.parametrize("name", DETECTORS)
def test_it_is_pruned(name, tmp_path):
    dense = count_parameters(DETECTORS[name][0]())
    module = trained(name, tmp_path, [StructuredPruning(target_macs=0.5, round_to=1)])
    assert count_parameters(module) < 0.7 * dense


@pytest.mark.parametrize("name", DETECTORS)
def test_it_is_explained(name, tmp_path):
    trained(name, tmp_path, [AttributionMonitor(probe=2)])
    file = max(tmp_path.rglob("attributions.npz"), key=lambda one: one.stat().st_mtime)
    with np.load(file) as arrays:
        maps = [arrays[key] for key in arrays.files if key.startswith("attributions")]
    assert sum(one.size for one in maps) == 2 * 3 * 8 * 8
    assert all(one.std() > 0 for one in maps)


@pytest.mark.parametrize("name", DETECTORS)
def test_it_is_distilled(name, tmp_path):
    plain = trained(name, tmp_path, [])
    module = trained(name, tmp_path, [KnowledgeDistillation("ema")])
    assert any(not torch.equal(one, other) for one, other in zip(module.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("name", ["stack", "query"])
def test_it_is_quantized_and_exported(name, tmp_path):
    export = ModelExport(tmp_path / "export")
    trained(name, tmp_path, [QuantizationAwareTraining(), export])
    assert export.report is not None
    assert export.report.integer_operators
    assert all(row.difference < 0.3 for row in export.report.rows if row.difference is not None)

"""Texts in one run: pruned, distilled, trained for integers, exported for any length, explained, and compared."""

import random
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_xai.callbacks import (
    AttributionMonitor,
    KnowledgeDistillation,
    ModelExport,
    QuantizationAwareTraining,
    RetentionMonitor,
    StructuredPruning,
)
from lit_xai.data import TextDataModule, Texts
from lit_xai.export.parity import OnnxPredictor
from lit_xai.models import Classifier, TextTransformer

WORDS = [first + last for first in ("ba", "ko", "ri", "tu", "se") for last in ("lo", "ma", "ni", "pe", "zu")]


def opinions(n):
    draw, texts = random.Random(0), []
    for i in range(n):
        words = [draw.choice(WORDS) for _ in range(draw.randint(4, 14))]
        words[draw.randrange(len(words))] = "superb" if i % 2 else "dreadful"
        texts.append(" ".join(words))
    return Texts(texts, [i % 2 for i in range(n)], ["rotten", "fresh"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*treespec|.*SLOWER|.*as more would take")
def test_everything_composes_on_texts(tmp_path):
    seed_everything(0)
    data = TextDataModule.from_texts(opinions(480), vocab_size=120, batch_size=32)
    network = TextTransformer(vocab_size=120, max_length=32, dim=64, depth=1, heads=4, dropout=0.1)
    model = Classifier(network, num_classes=2, optimizer=partial(torch.optim.AdamW, lr=3e-3))
    callbacks = [
        StructuredPruning(target_macs=0.25, start_epoch=4, end_epoch=4, report_latency=False),
        KnowledgeDistillation(teacher="dense"),
        QuantizationAwareTraining(start_epoch=6),
        ModelExport(program=False),
        AttributionMonitor(every_n_epochs=8, probe=4, name="texts"),
        retention := RetentionMonitor(n=32, nulls=2, ladder=[8], every_n_epochs=8, time_share=1.0, time_budget=9.0),
        ModelCheckpoint(tmp_path / "checkpoints", monitor="val/loss", save_last=True),
    ]
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    Trainer(max_epochs=8, callbacks=callbacks, default_root_dir=tmp_path, **options).fit(model, data)
    assert list(tmp_path.rglob("texts/epoch=7/figure.html"))
    assert set(retention.result) == {"LayerIntegratedGradients-network.words", "Occlusion"}
    for name in ("model.onnx", "model.int8.onnx"):
        (file,) = tmp_path.rglob(name)
        predictor, right = OnnxPredictor(file), []
        for batch in data.val_dataloader():
            inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
            right.append(predictor(inputs).argmax(1) == batch["labels"])
        assert torch.cat(right).float().mean() >= 0.95, name

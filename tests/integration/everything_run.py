"""Run by test_killed.py: a fit with everything that shrinks and everything that explains, killed at a batch.

    python everything_run.py FOLDER NETWORK [EPOCH:BATCH]

NETWORK: ``text``, ``bert`` or ``series``. Resumes from ``last.ckpt`` in the folder, if it is there.
"""

import random
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

sys.path += [str(Path(__file__).parents[1])]

from processes import KillAt

from lit_xai import (
    AttributionMonitor,
    ExplanationMatching,
    KnowledgeDistillation,
    ModelExport,
    QuantizationAwareTraining,
    RetentionMonitor,
    StructuredPruning,
)
from lit_xai.data import Series, SeriesDataModule, TextDataModule, Texts
from lit_xai.models import Classifier, ConvNet1d, TextTransformer

WORDS = [first + last for first in ("ba", "ko", "ri", "tu", "se") for last in ("lo", "ma", "ni", "pe", "zu")]
EPOCHS, QUANTIZED_FROM = 5, 3


class Voices(SeriesDataModule):
    """Noise of 29 frames in 12 coefficients, one of which is higher by the class; lengths differ."""

    class_names = ["low", "mid", "high"]

    def read(self, train):
        rng = np.random.default_rng(int(train))
        y = rng.integers(3, size=240)
        x = [rng.normal(size=(12, rng.integers(9, 30))) for _ in y]
        for series, speaker in zip(x, y, strict=True):
            series[4 * speaker] += 1
        return Series(x, y)


def opinions():
    draw, texts = random.Random(0), []
    for i in range(240):
        words = [draw.choice(WORDS) for _ in range(draw.randint(4, 14))]
        words[draw.randrange(len(words))] = "superb" if i % 2 else "dreadful"
        texts.append(" ".join(words))
    data = Texts(texts, [i % 2 for i in range(240)], ["rotten", "fresh"])
    return TextDataModule.from_texts(data, vocab_size=120, batch_size=16)


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=120, max_position_embeddings=32, num_labels=2, **sizes))


NETWORKS = {
    "text": (partial(TextTransformer, vocab_size=120, max_length=32, dim=32, depth=2, heads=4), opinions, 2),
    "bert": (bert, opinions, 2),
    "series": (partial(ConvNet1d, in_channels=12, width=16, num_classes=3), partial(Voices, batch_size=16), 3),
}


def main(folder, kind, point=""):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seed_everything(0, verbose=False)
    network, data, classes = NETWORKS[kind]
    model = Classifier(network(), num_classes=classes, optimizer=partial(torch.optim.AdamW, lr=3e-3))
    saving = ModelCheckpoint(folder, "{epoch}", monitor="val/loss", save_last=True)
    callbacks = [
        StructuredPruning(target_macs=0.4, start_epoch=1, end_epoch=2, every_n_epochs=1, report_latency=False),
        KnowledgeDistillation("dense", explanation=ExplanationMatching(every_n_steps=2)),
        QuantizationAwareTraining(start_epoch=QUANTIZED_FROM, calibration_batches=4),
        ModelExport(overwrite=True, program=False),
        AttributionMonitor(probe=4, every_n_epochs=2, on_error="raise"),
        RetentionMonitor(n=16, nulls=2, ladder=[8], every_n_epochs=2, time_share=1.0, on_error="raise"),
        KillAt(point),
        saving,
    ]
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / "last.ckpt"
    trainer.fit(model, datamodule=data(), ckpt_path=last if last.exists() else None)
    torch.save({"weights": model.state_dict(), "rng": torch.get_rng_state()}, folder / "end.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

"""Run by test_disks.py in a mount namespace: a fit with everything, on a disk that fills up or turns read-only.

    python disk_run.py FOLDER HOW RESULT

FOLDER is where a small file system is mounted; HOW is ``full`` or ``read-only``, and ``from the start`` or ``later``.
"""

import contextlib
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, Trainer, seed_everything

from lit_xai import AttributionMonitor, KnowledgeDistillation, ModelExport, StructuredPruning
from lit_xai.data import Digits
from lit_xai.distillation.output_cache import OutputCache
from lit_xai.models import MLP, Classifier


def spoil(folder: Path, how: str) -> None:
    """Take the disk's room, or make it read-only."""
    if "full" in how:
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


class Spoil(Callback):
    def __init__(self, folder: Path, how: str) -> None:
        self.folder, self.how = folder, how

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1 and "later" in self.how:
            spoil(self.folder, self.how)


def model() -> Classifier:
    return Classifier(MLP(64, (32, 16), 10), num_classes=10)


def fit(seed: int, teacher: Classifier, folder: Path, how: str = "") -> Trainer:
    seed_everything(seed, verbose=False)
    callbacks = [
        Spoil(folder, how),
        AttributionMonitor("Saliency", probe=4),
        StructuredPruning(pruning_ratio=0.3, start_epoch=1, end_epoch=1),
        KnowledgeDistillation(teacher, cache=str(folder / "cache.npz")),
        ModelExport(folder / "export", program=False, overwrite=True),
    ]
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        limit_train_batches=4,
        limit_val_batches=1,
        logger=False,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model(), Digits(batch_size=32))
    return trainer


def whole(folder: Path) -> dict[str, int]:
    """Open what is on the disk; raise what that raises."""
    export = json.loads((folder / "export" / "report.json").read_text())["files"]
    present = {path.name: path.stat().st_size for path in (folder / "export").iterdir() if path.name != "report.json"}
    assert {name: entry["bytes"] for name, entry in export.items()} == present
    arrays = [*folder.glob("attribution/**/*.npz")]
    for path in arrays:
        dict(np.load(path))
    teacher = np.load(folder / "cache.npz")["teacher"].tobytes().decode()
    return {"arrays": len(arrays), "cached": len(OutputCache(teacher, folder / "cache.npz"))}


def main(folder: Path, how: str, result: Path) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    teacher = model()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    if "later" in how:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(0, teacher, folder)  # a run before, whose files have to stay whole
    else:
        spoil(folder, how)
    found: dict[str, object] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found["epochs"] = fit(1, teacher, folder, how).current_epoch
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"
    messages = [str(one.message) for one in caught if "lit_xai" in one.filename or "No space" in str(one.message)]
    found["warnings"] = messages
    if "later" in how:
        found |= whole(folder)
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

"""Run by test_guard.py: guarded fits that are killed at a named point, or resumed from the newest whole checkpoint.

Its argument is a list of jobs in JSON, ``[{"folder": ..., "when": "save"}, ...]``, each done in a process of its own.
"""

import json
import os
import sys
import traceback
import warnings
from pathlib import Path

import torch
from fsspec.implementations.local import LocalFileOpener
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from processes import kill, write_half
from test_guard import FAST, MISSED, QUIET, Cut, Module, Witness, data

from lit_xai import RetentionMonitor
from lit_xai.structure.checkpoints import newest_whole_checkpoint
from lit_xai.structure.recipe import recipe_of


class Kill(Callback):
    """At a point of a run whose cut of epoch 1 is undone at the start of epoch 3."""

    def __init__(self, when):
        self.when = when

    def on_train_epoch_start(self, trainer, pl_module):
        if (self.when, trainer.current_epoch) in (("cut", 1), ("undone", 3)):
            kill()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1 and (self.when, trainer.current_epoch) in (("before", 2), ("after", 4)):
            kill()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.when == "save" and trainer.current_epoch == 2:  # the next file that is written is a checkpoint
            LocalFileOpener.write = write_half


def fit(folder, when, average):
    torch.manual_seed(0)
    module, witness, saved = Module(), Witness(), sorted(folder.glob("*.ckpt"))
    averages = [EMAWeightAveraging(decay=0.8)] if average else []
    guard = RetentionMonitor(guard=MISSED | {"val_acc": "drop<=1"}, **FAST)
    callbacks = [*averages, Cut(1, 3, 4), guard, Kill(when), witness, ModelCheckpoint(folder, "{epoch}", save_top_k=-1)]
    trainer = Trainer(max_epochs=6, default_root_dir=folder, callbacks=callbacks, **QUIET)
    loaders = DataLoader(data(), 16, shuffle=True), DataLoader(data(50, 1), 50)
    trainer.fit(module, *loaders, ckpt_path=newest_whole_checkpoint(saved[0]) if saved else None)
    # A buffer that no checkpoint holds starts anew in a resumed run.
    end = {name: value for name, value in witness.at["end"].items() if name != "seen"}
    metric = trainer.callback_metrics["val_acc"]
    torch.save({"end": end, "metric": metric, "steps": len(recipe_of(module).steps)}, folder / "final.pt")


def do(folder, when="", average=False):
    """Fit in a process of its own."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            fit(Path(folder), when, average)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1:
        sys.exit(1)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for job in json.loads(sys.argv[1]):
        do(**job)

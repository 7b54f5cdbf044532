"""Run by test__random.py: fits that are killed at a named point, or resumed from the newest whole checkpoint.

Its argument is a list of jobs in JSON: ``[{"folder": ..., "when": "training", "at_validation": false}, ...]``. Each is
done in a process of its own.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fsspec.implementations.local import LocalFileOpener
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

sys.path.append(str(Path(__file__).parents[1]))

from processes import kill, write_half

from lit_xai.pruning.pruning import prune_step
from lit_xai.structure.attachment import attach, detach
from lit_xai.structure.checkpoints import newest_whole_checkpoint
from lit_xai.trainer.best import start_over
from lit_xai.trainer.random_states import random_states, renew_batches_, restore_random_states_
from lit_xai.trainer.structure_change import change_structure


class Prune(Callback):
    """The least that a pruning callback does; any other that prunes at the start of epoch 2 can take its place."""

    def __init__(self):
        self.done, self.resumed = [], None

    def setup(self, trainer, pl_module, stage):
        attach(pl_module, self)

    def state_dict(self):
        return {"done": list(self.done), "random": random_states()}

    def load_state_dict(self, state_dict):
        self.done, self.resumed = list(state_dict["done"]), state_dict["random"]

    def on_train_epoch_start(self, trainer, pl_module):
        resumed, self.resumed = self.resumed, None
        if resumed is not None:
            restore_random_states_(resumed)
        if trainer.current_epoch == 2 and 2 not in self.done:
            step = prune_step(pl_module.network, torch.zeros(1, 1, 8, 8), pruning_ratio=0.5)
            step["kept"] = [[f"network.{name}", *rest] for name, *rest in step["kept"]]
            step["attributes"] = [[f"network.{name}", *rest] for name, *rest in step["attributes"]]
            change_structure(trainer, pl_module, step)
            start_over(trainer, "dense")
            self.done.append(2)
        if resumed is not None:
            renew_batches_(trainer)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.resumed = None  # resumed within an epoch: that state belongs to no later one

    def teardown(self, trainer, pl_module, stage):
        detach(pl_module, self)


PRUNING = Prune


class Noisy(Dataset):
    """Augmented from all three generators."""

    def __len__(self):
        return 32

    def __getitem__(self, index):
        x = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(index))
        return x + random.random() + 0.1 * torch.rand(1) + torch.from_numpy(np.random.rand(1)).float(), index % 4


class ByEpoch(Sampler):
    """An order that depends on the epoch alone."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(32, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self):
        return 32


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(288, 4)
        )

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)]


class Kill(Callback):
    def __init__(self, when):
        self.when = when

    def on_train_epoch_start(self, trainer, pl_module):
        if self.when == "prune" and trainer.current_epoch == 2:
            kill()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.when == "training" and trainer.current_epoch == 3 and batch_idx == 1:
            kill()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.when == "save" and trainer.current_epoch == 3:  # the next file that is written is a checkpoint
            LocalFileOpener.write = write_half


def fit(folder, when, at_validation, workers):
    seed_everything(0, verbose=False)
    torch.manual_seed(0)
    module, saved = Module(), sorted(folder.glob("*.ckpt"))
    trainer = Trainer(
        max_epochs=5,
        callbacks=[
            PRUNING(),
            Kill(when),
            EarlyStopping("val/loss", patience=9, check_on_train_epoch_end=not at_validation),
            ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=not at_validation),
            ModelCheckpoint(folder / "best", "{epoch}", monitor="val/loss", save_on_train_epoch_end=not at_validation),
        ],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    options = {"num_workers": workers, "multiprocessing_context": "fork" if workers else None}
    train = DataLoader(Noisy(), batch_size=8, sampler=ByEpoch(), **options)
    trainer.fit(
        module,
        train,
        DataLoader(Noisy(), batch_size=16),
        ckpt_path=newest_whole_checkpoint(saved[0]) if saved else None,
    )
    torch.save(module.state_dict(), folder / "final.pt")
    torch.save([trainer.callback_metrics.get("val/loss"), random_states()["torch"]], folder / "rest.pt")


def do(folder, when="", at_validation=False, workers=0, after=None):
    """Fit in a process of its own, killed after so many seconds where that is asked for; return how many it took."""
    start = time.monotonic()
    Path(folder).mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            fit(Path(folder), when, at_validation, workers)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1:
        sys.exit(1)
    return time.monotonic() - start


if __name__ == "__main__":  # these are the process' own: pytest imports this file to look for doctests
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    first, *others = json.loads(sys.argv[1])
    took = do(**first)
    for job in others:
        share = job.pop("share", None)  # of the time that the first one took
        do(**job, after=None if share is None else share * took)

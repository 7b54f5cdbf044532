"""Run by test_steps.py: a fit in optimizer steps, in one process or more, that kills itself at a random step.

    python step_run.py FOLDER SEED MODULE

SEED: draws the batch after which the run is killed; ``none`` for a run to the end. Resumes from the newest checkpoint.
MODULE: a class of step_runs.py. Writes ``end-RANK.pt``: structure, plan, what was met at each change, and weights.
"""

import os
import random
import signal
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import step_runs
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import leave_together

from lit_xai import QuantizationAwareTraining, StructuredPruning
from lit_xai.structure.recipe import recipe_of

warnings.simplefilter("ignore")
torch.set_num_threads(1)
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))
STEPS = 30


class Kill(Callback):
    def __init__(self, seed):
        self.left = None if seed == "none" else random.Random(int(seed)).randrange(2, 2 * STEPS - 1)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.left is not None:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)


def main():
    folder, seed, module = Path(sys.argv[1]), sys.argv[2], getattr(step_runs, sys.argv[3])()
    seed_everything(0, verbose=False)
    newest = max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    # As fractions where Lightning can tell how many steps there will be.
    start, end, distance = (6, 12, 3) if sys.argv[3] == "Manual" else (0.2, 0.4, 0.1)
    plan = StructuredPruning(
        0.5, start_step=start, end_step=end, every_n_steps=distance, round_to=1, report_latency=False
    )
    quantize = QuantizationAwareTraining(start_step=20, freeze_step=25, calibration_batches=1)
    # All optimizers' steps, in which Lightning counts.
    every = {"Recorded": 2, "Streamed": 3, "Manual": 10}[sys.argv[3]]
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=every, save_top_k=-1, save_on_train_epoch_end=False)
    trainer = step_runs.fit(
        module,
        folder,
        plan,
        Kill(seed),
        saving,
        quantize,
        ckpt_path=newest,
        enable_checkpointing=True,
        accumulate_grad_batches=1 if sys.argv[3] == "Manual" else 2,
        # 30 steps of the first optimizer, which in Manual takes one in two batches.
        **({"max_epochs": 6} if sys.argv[3] == "Manual" else {"max_epochs": -1, "max_steps": STEPS}),
        **({"strategy": "ddp", "devices": WORLD_SIZE} if WORLD_SIZE > 1 else {"devices": 1}),
    )
    steps = recipe_of(module).steps
    end = {
        "kinds": [(step["kind"], step.get("note")) for step in steps],
        "kept": [[(name, dim, size, len(kept)) for name, dim, size, kept in step.get("kept", [])] for step in steps],
        "shapes": {name: tuple(value.shape) for name, value in module.state_dict().items()},
        "met": step_runs.changes(module),
        "weights": module.state_dict(),
    }
    torch.save(end, folder / f"end-{trainer.global_rank}.pt")
    if WORLD_SIZE > 1:
        leave_together()


if __name__ == "__main__":
    main()

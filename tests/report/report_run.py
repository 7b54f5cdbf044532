"""Run by test_callback.py: a pruned and quantized run with a report, killed half-way, resumed, or in two processes."""

import os
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from processes import KillAt, leave_together
from retention_runs import QUIET, Module
from test_callback import Data, cut

from lit_xai import ModelExport, ModelReport, QuantizationAwareTraining


def fit(folder, how):
    torch.manual_seed(0)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    report = ModelReport({"accuracy": "drop<=20 %"}, n=40, nulls=3, rounds=3)
    callbacks = [report, cut(), QuantizationAwareTraining(start_epoch=3), ModelExport(program=False)]
    callbacks += [ModelCheckpoint(folder, save_last=True), KillAt("2:1" if how == "kill" else "")]
    strategy = {"devices": processes, "strategy": "ddp" if processes > 1 else "auto"}
    trainer = Trainer(max_epochs=4, default_root_dir=folder, callbacks=callbacks, **QUIET, **strategy)
    trainer.fit(Module(), datamodule=Data(), ckpt_path="last" if how == "resume" else None)
    assert not trainer.is_global_zero or report.digest


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    given = Path(sys.argv[1]), sys.argv[2]
    child = os.fork() if given[1] == "kill" else 0
    if child == 0:
        fit(*given)
        leave_together()
    else:
        os.waitpid(child, 0)

"""Run by test_callback_others.py in one process and in two, which have to measure the same."""

import os
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lit_xai import RetentionMonitor
from lit_xai.retention.explainer import Explainer

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together
from retention_runs import FAST, QUIET, Module, data

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reference, module = Module(), Module()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.0)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    # Steps that are ours to choose are as many as the process with the hardest samples needs.
    explainer = Explainer("IntegratedGradients", attribute_args={"n_steps": 16})
    options = FAST | {"explainer": explainer, "second_explainer": "Occlusion"}
    monitor = RetentionMonitor(reference, on_error="raise", **options)
    trainer = Trainer(
        max_epochs=1,
        default_root_dir=Path(sys.argv[1]) / str(processes),
        callbacks=[monitor],
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        **QUIET,
    )
    trainer.fit(module, DataLoader(data(), 16), DataLoader(data(50, 1), 16))
    leave_together()

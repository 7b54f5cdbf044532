"""Run by test_resume.py: a fit with distillation and pruning that kills itself by SIGKILL.

    python distilled_run.py FOLDER POINT

POINT: ``whole``, or ``EPOCH:BATCH``. Resumes from the newest checkpoint, if there is one.
"""

import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import KillAt
from taught import Conv, Module, fit, loader

from lit_xai import ExplanationMatching, KnowledgeDistillation, StructuredPruning


def main():
    folder, point = Path(sys.argv[1]), sys.argv[2]
    newest = max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    module = Module(Conv(16))
    fit(
        module,
        folder,
        StructuredPruning(0.5, start_epoch=1, end_epoch=2, every_n_epochs=1, round_to=1, report_latency=False),
        KnowledgeDistillation(
            "dense", alpha=[0.9, 0.5], features=["second"], explanation=ExplanationMatching(every_n_steps=2)
        ),
        KnowledgeDistillation("ema", alpha=0.3, temperature=[1, 2]),
        KillAt(point),
        ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True),
        ckpt_path=newest,
        max_epochs=5,
        train=loader(shuffle=True),
    )
    torch.save(module.state_dict(), folder / "end.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main()

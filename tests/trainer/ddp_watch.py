"""Run by test_watched_callback.py in two processes: a training that a cut wrecks, and what each process is told."""

import json
import os
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from processes import leave_together
from watched_runs import Run, mlp, prune, raised, sgd

torch.set_num_threads(1)


def main(folder):
    strategy = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
    cut = prune(0.9, start_epoch=3, end_epoch=3)
    run = Run(cut, mlp, optimizer=sgd(0.02), schedule=raised(100, 3), epochs=6, options=strategy)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run.fit(folder)
    said = [str(one.message) for one in seen if "has wrecked" in str(one.message)]
    (folder / f"said-{os.environ['RANK']}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_together()

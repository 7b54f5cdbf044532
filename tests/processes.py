"""Scripts that run in processes of their own, and how those of several processes end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from lightning.pytorch import Callback
from torch import distributed


def leave_together():
    """End every process at once and without taking it down: gloo's threads may abort an interpreter that does."""
    if distributed.is_initialized():
        distributed.barrier()
        sys.stdout.flush()
        os._exit(0)


def run_script(script, *arguments, processes=2, timeout=280):
    """Run a script in one process, or as torchrun does in several with a thread each; it has to end well."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *several, *map(str, (Path(script), *arguments))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def kill():
    """End this process as ``kill -9`` would."""
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt(Callback):
    """Kills the process after a batch.

    Args:
        point: ``EPOCH:BATCH``, both counted from 0; empty for never.
    """

    def __init__(self, point):
        self.point = point

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.point == f"{trainer.current_epoch}:{batch_idx}":
            kill()


def write_half(self, data, *args):
    """Stand in for LocalFileOpener.write: the process is killed amid writing a checkpoint."""
    self.f.write(bytes(data)[: len(data) // 2])
    self.f.flush()
    kill()

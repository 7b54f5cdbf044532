"""How a script of several processes ends."""

import os
import sys

from torch import distributed


def leave_together():
    """End every process at once and without taking it down: gloo's threads may abort an interpreter that does."""
    if distributed.is_initialized():
        distributed.barrier()
        sys.stdout.flush()
        os._exit(0)

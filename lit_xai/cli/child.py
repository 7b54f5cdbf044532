"""A process for a cell of a study, which ends when the process that started it does, in whatever way that ends.

``python -m lit_xai.cli.child``, with a job as a line of JSON at its standard input, which is then kept open.
"""

import json
import os
import sys
import threading

from lit_xai.cli.cell_runs import do


def run() -> int:
    """Do the job at standard input and return the exit code."""
    line = b""
    while not line.endswith(b"\n"):
        line += (part := os.read(0, 65536))
        if not part:
            return 1
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return do(json.loads(line))


def _end_with_parent() -> None:
    """Wait for the end of standard input, a pipe whose other end no process but the parent has."""
    # Not sys.stdin, whose lock Python wants to have at its end.
    while os.read(0, 65536):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(run())

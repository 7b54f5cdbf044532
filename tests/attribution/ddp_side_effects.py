"""Run by test_side_effects.py in two processes: one fit without and one with each monitor, what was seen as JSON."""

import json
import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[1]))

from callbacks_settings import METHODS, fit, monitor  # noqa: E402 - the path comes first
from processes import leave_together  # noqa: E402 - the path comes first

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    rank = os.environ["RANK"]
    seen = {"none": fit("ddp", None, folder)}
    for method in METHODS:
        seen[method] = fit("ddp", monitor(method), folder)
    (folder / f"seen-{rank}.json").write_text(json.dumps(seen))
    leave_together()

"""``lit-xai demo``: real digits, a small network, and a picture of its attributions; ``--full``: also compressed."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lit_xai.cli.run import start
from lit_xai.trainer.access import run_folder

_CONFIGS = ("base", "digits", "attributions")
_FULL = ("base", "digits", "compress")

# So wide that compression pays: at width 16 the network is too small for fewer channels and integers to be much faster.
# Digits need fewer epochs than the config's 20, and a demonstration has to end soon.
_FULL_OPTIONS = ("--model.network.width", "64", "--trainer.max_epochs", "16")

_EXPORTED = """
The compressed network, which runs without torch; `python {infer}` checks it, and predicts from .npy files:
  {folder}
"""

_REPORTED = """
What became of the network on the test data, with a verdict on what was required before the first step:
  {report}
  lit-xai check {folder}
"""

_END = """
What the network looks at after its last epoch (red: evidence for the class, blue: against it):
  {picture}
Earlier epochs, on TensorBoard's slider:
  tensorboard --logdir {logs} --samples_per_plugin images=500
"""


def demo(options: Sequence[str]) -> int:
    """Train as ``lit-xai fit --config base --config digits --config attributions`` would, and print where to look.

    Args:
        options: ``--full`` for ``--config compress --model.network.width 64 --trainer.max_epochs 16`` in place of
            ``--config attributions``; further options of ``fit``, such as ``--trainer.max_epochs 3``.
    """
    full = "--full" in options
    configs = [part for name in (_FULL if full else _CONFIGS) for part in ("--config", name)]
    fit_options = [option for option in options if option != "--full"]
    more = _FULL_OPTIONS if full else ()
    cli = start(["fit", *configs, *more, "--trainer.devices", "1", *fit_options])
    if cli is None:
        return 1
    folder = run_folder(cli.trainer)
    pictures = sorted(folder.glob("attribution/**/*.png"), key=os.path.getmtime)
    if not pictures:
        sys.stderr.write(f"lit-xai: error: the run in '{folder}' left no picture; the warnings above tell why.\n")
        return 1
    exported = folder / "export"
    if full and not (exported / "infer.py").exists():
        sys.stderr.write(f"lit-xai: error: the run in '{folder}' left no export; the warnings above tell why.\n")
        return 1
    if full:
        sys.stdout.write(_EXPORTED.format(folder=_relative(exported), infer=_relative(exported / "infer.py")))
        report = folder / "report.html"
        if report.exists():
            sys.stdout.write(_REPORTED.format(report=_relative(report), folder=_relative(folder)))
    sys.stdout.write(_END.format(picture=_relative(pictures[-1]), logs=_relative(folder.parent)))
    return 0


def _relative(path: Path) -> str:
    return os.path.relpath(path)

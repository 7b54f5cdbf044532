"""``lit-xai demo``: real digits, a small network, and a picture of its attributions; ``--full``: also compressed."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lit_xai.cli.run import start
from lit_xai.trainer.access import run_folder

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_DATA = ("base", "digits")

# So wide that compression pays: at width 16 the network is too small for fewer channels and integers to be much faster.
_WIDE = ("--model.network.width", "64")

_FIRST = """
First the dense network is trained, which the compressed one is held against:
"""

_THEN = """
Then it is pruned, taught by itself as it was, quantized, exported, explained and compared:
"""

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
        options: ``--full`` to train a wide network, and then to run ``--config compress`` from its best weights, in
            place of ``--config attributions``; further options of ``fit``, such as ``--trainer.max_epochs 3``.
    """
    full = "--full" in options
    given = [option for option in options if option != "--full"]
    trainer = _compress(given) if full else _fit("attributions", given)
    if trainer is None:
        return 1
    folder = run_folder(trainer)
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


def _compress(given: Sequence[str]) -> "Trainer | None":
    sys.stdout.write(_FIRST)
    dense = _fit(None, [*_WIDE, "--trainer.max_epochs", "20", *given])
    if dense is None:
        return None
    sys.stdout.write(_THEN)
    best: str = getattr(dense.checkpoint_callback, "best_model_path", "")
    return _fit("compress", [*_WIDE, "--init_from", best, *given])


def _fit(config: str | None, options: Sequence[str]) -> "Trainer | None":
    configs = [part for name in filter(None, (*_DATA, config)) for part in ("--config", name)]
    cli = start(["fit", *configs, "--trainer.devices", "1", *options])
    return None if cli is None else cli.trainer


def _relative(path: Path) -> str:
    return os.path.relpath(path)

"""The metric by which a run is judged."""

import contextlib
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from lit_xai.trainer.access import callbacks_of, is_a


def monitored_key(trainer: Trainer) -> str | None:
    """Return the name of the metric that checkpoints or early stopping monitor, or else the first of validation.

    ``None`` where neither monitors any and none was logged yet.
    """
    monitors = [c.monitor for c in callbacks_of(trainer) if is_a(c, "ModelCheckpoint", "EarlyStopping")]
    logged = [name for name in numbers(trainer.callback_metrics) if name.startswith("val")]
    return next((name for name in [*monitors, *logged] if name), None)


def monitored(trainer: Trainer) -> tuple[str, float] | None:
    """Return the metric that checkpoints or early stopping monitor, else the first validation metric, else any."""
    found = numbers(trainer.callback_metrics)
    monitors = [c.monitor for c in callbacks_of(trainer) if is_a(c, "ModelCheckpoint", "EarlyStopping")]
    names = [*monitors, *(name for name in found if name.startswith("val")), *found]
    name = next((name for name in names if name in found), None)
    return None if name is None else (name, found[name])


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are one number: a metric of each class, say, is several."""
    found = {}
    for name, value in metrics.items():
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            found[name] = float(value)
    return found

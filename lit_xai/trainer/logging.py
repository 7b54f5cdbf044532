"""Log images, numbers and text to all loggers of a Trainer; a logger that fails does not end the run."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from numpy.typing import NDArray

from lit_xai.trainer.access import is_a
from lit_xai.trainer.run_page import page_of

# Loggers already reported: by id, since a logger need not be hashable; weak, since Python reuses the id of a dead one.
_known_to_fail: WeakValueDictionary[int, Any] = WeakValueDictionary()
_known_without_images: WeakValueDictionary[int, Any] = WeakValueDictionary()


@rank_zero_only
def log_image(trainer: Trainer, tag: str, image: NDArray[np.uint8], step: int, png: Path) -> None:
    """Log an image to every logger of the Trainer that can show one; name a logger that cannot, once.

    Args:
        trainer: of ``lightning.pytorch`` or ``pytorch_lightning``.
        tag: the name of the image, with slashes for groups.
        image: ``(height, width, channels)``.
        step: its place on the x-axis, see :func:`~lit_xai.trainer.access.logged_step`.
        png: the same image, already written to the run's folder.
    """
    for logger in trainer.loggers:
        with _outlived(logger):
            _show(logger, tag, image, step, png)


@rank_zero_only
def log_scalars(trainer: Trainer, metrics: Mapping[str, float], step: int) -> None:
    """Log numbers to every logger of the Trainer under their own names."""
    page = page_of(trainer)
    if page is not None:
        page.log(trainer, metrics)
    for logger in trainer.loggers:
        with _outlived(logger):
            logger.log_metrics(dict(metrics), step=step)


@rank_zero_only
def log_text(trainer: Trainer, tag: str, markdown: str, step: int) -> None:
    """Log Markdown to TensorBoard's text tab and as an artifact of an MLflow run; other loggers have no place for it.

    Args:
        trainer: of ``lightning.pytorch`` or ``pytorch_lightning``.
        tag: the name of the text, with slashes for groups.
        markdown: the text.
        step: its place on the x-axis.
    """
    for logger in trainer.loggers:
        with _outlived(logger):
            if is_a(logger, "TensorBoardLogger"):
                logger.experiment.add_text(tag, markdown, global_step=step)  # type: ignore[attr-defined]  # is_a narrows no type
            elif is_a(logger, "MLFlowLogger"):
                logger.experiment.log_text(logger.run_id, markdown, f"{tag}.md")  # type: ignore[attr-defined]  # as above


@rank_zero_only
def log_files(trainer: Trainer, paths: Sequence[Path], kind: str) -> None:
    """Log files as artifacts of an MLflow or W&B run; what other loggers have is the run's folder.

    Args:
        trainer: of ``lightning.pytorch`` or ``pytorch_lightning``.
        paths: of the files.
        kind: what they are, such as ``"report"``: MLflow's folder, and W&B's type.
    """
    for logger in trainer.loggers:
        with _outlived(logger):
            for path in paths:
                if is_a(logger, "MLFlowLogger"):
                    logger.experiment.log_artifact(logger.run_id, str(path), kind)  # type: ignore[attr-defined]  # is_a narrows no type
                elif is_a(logger, "WandbLogger"):
                    run: Any = logger.experiment  # type: ignore[attr-defined]  # as above
                    run.log_artifact(str(path), name=f"{path.stem}-{run.id}", type=kind)


def _show(logger: Any, tag: str, image: NDArray[np.uint8], step: int, png: Path) -> None:
    if is_a(logger, "TensorBoardLogger"):
        logger.experiment.add_image(tag, image, global_step=step, dataformats="HWC")
    elif is_a(logger, "MLFlowLogger"):
        # MLflow refuses other characters in image names.
        key = re.sub(r"[^a-zA-Z0-9_./ -]", "_", tag)
        logger.experiment.log_image(logger.run_id, image, key=key, step=step)
    elif is_a(logger, "WandbLogger"):
        # Through the logger rather than its run, because the logger puts the step on the axis `trainer/global_step`.
        logger.log_image(tag, [str(png)], step=step)
    elif not is_a(logger, "CSVLogger", "DummyLogger") and id(logger) not in _known_without_images:
        _known_without_images[id(logger)] = logger
        rank_zero_info(f"{type(logger).__name__} cannot show images: they are PNG files in '{png.parent}'.")


def outlived(logger: Any, work: Callable[[], None]) -> None:
    """Do something for a logger whose failure ends nothing, and is reported once."""
    with _outlived(logger):
        work()


@contextmanager
def _outlived(logger: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if id(logger) not in _known_to_fail:
            _known_to_fail[id(logger)] = logger
            rank_zero_warn(
                f"{type(logger).__name__} failed to log ({type(error).__name__}: {error}): training continues, and"
                " further failures of this logger are not reported."
            )

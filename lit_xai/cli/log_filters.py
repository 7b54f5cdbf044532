"""Filters of Lightning messages that every user of the command line gets and none can act on."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WARNINGS = (
    # The library's datasets are in memory, where more workers are slower.
    r"The '\w+_dataloader' does not have many workers",
    # Lightning's own use of an API that this release of torch deprecates.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
_WITHOUT_TRAINING = (
    # From ModelCheckpoint, for every checkpoint that is evaluated, where it saves nothing.
    r"The dirpath has changed from .*, therefore `best_model_score`",
)
# Lightning is published twice; the package that was imported last logs for both.
_LOGGERS = (
    logging.getLogger("lightning.pytorch.utilities.rank_zero"),
    logging.getLogger("pytorch_lightning.utilities.rank_zero"),
)
_INFO = ("💡 Tip: For seamless cloud", "TPU available: False", "Loading `train_dataloader` to estimate")


@contextmanager
def filter_messages(command: str) -> Iterator[None]:
    """Drop a few messages, by their exact words, and no others.

    Args:
        command: ``fit``, ``validate`` ...
    """
    for logger in _LOGGERS:
        logger.addFilter(_is_kept)
    try:
        with warnings.catch_warnings():
            for message in _WARNINGS + (() if command == "fit" else _WITHOUT_TRAINING):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger in _LOGGERS:
            logger.removeFilter(_is_kept)


def _is_kept(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_INFO)

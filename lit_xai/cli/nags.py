"""What Lightning says to every user of the command line and helps none of them."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WARNINGS = (
    # The data here lies in memory, where more workers are slower; whoever reads files sees the GPU wait.
    r"The '\w+_dataloader' does not have many workers",
    # Lightning's own affair with this release of torch.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
_WITHOUT_TRAINING = (
    # ModelCheckpoint, which has nothing to do then, on every file that is evaluated.
    r"The dirpath has changed from .*, therefore `best_model_score`",
)
# Lightning is published twice; the package that was imported last speaks for both.
_LOGGERS = (
    logging.getLogger("lightning.pytorch.utilities.rank_zero"),
    logging.getLogger("pytorch_lightning.utilities.rank_zero"),
)
_INFO = ("💡 Tip: For seamless cloud", "TPU available: False", "Loading `train_dataloader` to estimate")


@contextmanager
def without_nags(command: str) -> Iterator[None]:
    """Leave out a few messages, by their exact words, and no others.

    Args:
        command: ``fit``, ``validate`` ...
    """
    for logger in _LOGGERS:
        logger.addFilter(_is_no_nag)
    try:
        with warnings.catch_warnings():
            for message in _WARNINGS + (() if command == "fit" else _WITHOUT_TRAINING):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger in _LOGGERS:
            logger.removeFilter(_is_no_nag)


def _is_no_nag(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_INFO)

import logging
import warnings

import pytest
from lightning.pytorch.utilities import rank_zero_info

from lit_xai.cli.log_filters import filter_messages

WORKERS = "The 'train_dataloader' does not have many workers which may be a bottleneck."
MOVED = "The dirpath has changed from 'a' to 'b', therefore `best_model_score`, `kth_best_model_path` ..."


def test_known_messages_are_left_out_and_all_others_stay(caplog):
    with caplog.at_level("INFO"), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with filter_messages("fit"):
            warnings.warn(WORKERS, stacklevel=1)
            warnings.warn(MOVED, stacklevel=1)
            warnings.warn("something else", stacklevel=1)
            rank_zero_info("💡 Tip: For seamless cloud logging")
            rank_zero_info("GPU available: False")
        with filter_messages("test"):
            warnings.warn(MOVED, stacklevel=1)
    assert [str(warning.message) for warning in heard] == [MOVED, "something else"]
    assert caplog.messages == ["GPU available: False"]


def test_the_twin_package_is_quiet_too(caplog):
    with caplog.at_level("INFO"), filter_messages("fit"):
        import pytorch_lightning.utilities.rank_zero as twin  # which speaks for both from here on

        twin_log, twin.rank_zero_module.log = twin.rank_zero_module.log, logging.getLogger(twin.__name__)
        rank_zero_info("💡 Tip: For seamless cloud uploads")
        twin.rank_zero_module.log = twin_log
    assert not caplog.messages


def test_afterwards_they_are_heard_again(caplog):
    with pytest.raises(ValueError, match="in between"), filter_messages("fit"):
        raise ValueError("in between")
    with pytest.warns(UserWarning, match="many workers"):
        warnings.warn(WORKERS, stacklevel=1)
    with caplog.at_level("INFO"):
        rank_zero_info("💡 Tip: For seamless cloud logging")
    assert len(caplog.messages) == 1

"""Which metric a run is judged by."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lit_xai.trainer.monitored import monitored, monitored_key

QUIET = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


@pytest.mark.parametrize(
    ("callbacks", "logged", "key", "value"),
    [
        ([], {}, None, None),
        ([ModelCheckpoint()], {"train_loss": 1.0}, None, ("train_loss", 1.0)),
        ([ModelCheckpoint()], {"train_loss": 1.0, "val_loss": 2.0}, "val_loss", ("val_loss", 2.0)),
        ([EarlyStopping("f1")], {"val_loss": 2.0, "f1": 0.5}, "f1", ("f1", 0.5)),
        ([EarlyStopping("f1")], {"val_loss": 2.0}, "f1", ("val_loss", 2.0)),
    ],
)
def test_the_monitored_metric_comes_first(callbacks, logged, key, value):
    trainer = Trainer(callbacks=callbacks, **QUIET)
    trainer._logger_connector._callback_metrics.update({name: torch.tensor(one) for name, one in logged.items()})
    trainer._logger_connector._callback_metrics["by class"] = torch.ones(2)
    trainer.fit_loop.epoch_loop._results.clear()
    assert monitored_key(trainer) == key
    assert monitored(trainer) == value

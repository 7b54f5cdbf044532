"""Steps that run with a stand-in for their Trainer."""

import lightning.pytorch
import pytest
import torch
from taught import Conv, Module, data
from witness import digest, module_state

from lit_xai.network.observing import Told
from lit_xai.trainer.stand_in import run_step, standing_in, step_loader

BATCH = data().tensors


class Greedy(Module):
    """Its step does whatever a step may do to a Trainer."""

    def __init__(self, network):
        super().__init__(network)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        trainer = self.trainer
        first = self.optimizers()
        first.zero_grad()
        first.param_groups[0]["lr"] = 100.0
        loss = self(batch[0]).square().mean()
        with first.toggle_model():
            self.manual_backward(loss)
        self.toggle_optimizer(first)
        self.clip_gradients(first, 1.0)
        first.step(lambda: None)
        scheduler = self.lr_schedulers()
        if scheduler:
            scheduler.step()
        self.log("loss", loss)
        self.log_dict({"a": loss})
        self.print("nothing")
        trainer.strategy.barrier("none")
        assert trainer.strategy.broadcast(3) == 3
        assert self.all_gather(loss) is loss
        trainer.should_stop = True
        trainer.save_checkpoint("never.ckpt")
        if self.logger:
            self.logger.experiment.add_scalar("loss", 1.0, 0)
            self.logger.log_metrics({"a": 1})
        assert trainer.max_epochs == 3
        assert trainer.training
        assert trainer.current_epoch == self.current_epoch
        assert trainer.estimated_stepping_batches > 0
        assert trainer.datamodule is None
        assert trainer.is_global_zero


class Ask(lightning.pytorch.Callback):
    def on_train_start(self, trainer, pl_module):
        optimizer = trainer.optimizers[0]
        before = digest([module_state(pl_module), optimizer.state_dict(), trainer.callback_metrics])
        attributes = set(vars(pl_module))
        self.told = Told()
        with standing_in(trainer, pl_module, "train", self.told):
            run_step(pl_module, BATCH, "train", self.told)
        assert digest([module_state(pl_module), optimizer.state_dict(), trainer.callback_metrics]) == before
        assert set(vars(pl_module)) == attributes
        assert pl_module.trainer is not None
        assert not trainer.should_stop
        trainer.should_stop = True


@pytest.mark.parametrize("logger", [False, True])
def test_a_step_can_read_its_trainer_and_change_nothing(tmp_path, monkeypatch, logger):
    monkeypatch.chdir(tmp_path)
    ask = Ask()
    options = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"limit_train_batches": 1, "log_every_n_steps": 1}
    trainer = lightning.pytorch.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=logger,
        callbacks=[ask],
        **options,
    )
    trainer.fit(Greedy(Conv()), torch.utils.data.DataLoader(data(), 8), torch.utils.data.DataLoader(data(), 8))
    assert not (tmp_path / "never.ckpt").exists()
    assert ask.told.backward == 1
    assert len(ask.told.losses) == 1
    assert len(ask.told.others) == 2


def test_the_step_of_training_stands_in_for_one_that_is_missing():
    assert step_loader(Greedy(Conv()), "test") in ("test", "train")
    assert step_loader(lightning.pytorch.LightningModule(), "val") == "train"

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lit_xai.cli.predictions import save_predictions
from lit_xai.network.saving import unused


class ReturnsNothing(BoringModel):
    def predict_step(self, batch, batch_idx):
        pass


def predicted(model, folder):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        limit_predict_batches=3,
    )
    return trainer, trainer.predict(model, model.test_dataloader())


def test_what_was_returned_is_what_is_read_again(tmp_path):
    trainer, batches = predicted(BoringModel(), tmp_path / "new")
    path = save_predictions(trainer)
    assert path == tmp_path / "new" / "predictions.pt"
    torch.testing.assert_close(torch.load(path, weights_only=True), batches, rtol=0, atol=0)
    assert [file.name for file in path.parent.iterdir()] == ["predictions.pt"]


@pytest.mark.filterwarnings("ignore:predict returned None if it was on purpose")
def test_nothing_is_not_saved(tmp_path):
    trainer, _ = predicted(ReturnsNothing(), tmp_path)
    assert save_predictions(trainer) is None
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    trainer, _ = predicted(BoringModel(), tmp_path)

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("lightning.pytorch.plugins.io.TorchCheckpointIO.save_checkpoint", full)
    with pytest.raises(OSError, match="No space"):
        save_predictions(trainer)
    assert not list(tmp_path.iterdir())


def test_no_file_is_written_over(tmp_path):
    names = [unused(tmp_path / "a.b.pt").name for _ in range(3)]  # asked for by three processes before one writes
    assert names == ["a.b.pt", "a.b-v1.pt", "a.b-v2.pt"]

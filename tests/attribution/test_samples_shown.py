"""Nothing that an AttributionMonitor writes or logs tells of samples that must not be shown."""

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from planted import Secretive, arrays_and_pictures, holds_planted, samples
from renderers import Words
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import AttributionMonitor

SHAPES = {"images": (1, 8, 8), "series": (2, 20), "table": (6,)}


class Module(LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def fit(folder, network, loader, *callbacks, epochs=1):
    torch.manual_seed(0)
    checkpoint = ModelCheckpoint(folder / "checkpoints", save_last=True)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "log_every_n_steps": 1}
    logger = TensorBoardLogger(folder, name="", version="")
    trainer = Trainer(max_epochs=epochs, callbacks=[*callbacks, checkpoint], logger=logger, **quiet)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        trainer.fit(Module(network) if isinstance(network, Secretive) else network, loader, loader)
    return folder


def run(folder, kind, seed=0, **options):
    shape = SHAPES[kind]
    loader = samples(shape, seed=seed)
    network = Secretive(int(torch.tensor(shape).prod()))
    monitors = [AttributionMonitor("Saliency", probe=6, target=1, **options)]
    monitors += [AttributionMonitor("GradientShap", baselines="training", name="shap", probe=4, **options)]
    return fit(folder, network, loader, *monitors)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("shown", ["maps_only", "none"])
def test_no_file_or_event_tells_of_the_inputs(kind, shown, tmp_path):
    first, second = (run(tmp_path / name, kind, seed, samples=shown) for seed, name in enumerate("ab"))
    files = [path for path in first.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [path for path in files if holds_planted(path)] == []
    # The other explainer's maps are differences of inputs, and its numbers are of these.
    own, other = (
        {name: one for name, one in arrays_and_pictures(folder).items() if "shap" not in name}
        for folder in (first, second)
    )
    assert own == other
    assert any(name.endswith("attributions") for name in own) == (shown == "maps_only")
    assert any(name.endswith("figure.png") for name in own) == (shown == "maps_only")
    assert not any(name.endswith(("/inputs", "/baseline")) for name in own)


def test_what_is_shown_is_found(tmp_path):
    folders = [run(tmp_path / name, "images", seed) for seed, name in enumerate("ab")]
    held = {path.name for path in folders[0].rglob("*") if path.is_file() and holds_planted(path)}
    assert {name for name in held if name.startswith("probe-val")}
    assert "attributions.npz" in held  # the training samples that are its baseline
    first, second = map(arrays_and_pictures, folders)
    assert (
        first["attribution/Saliency-class1/epoch=0/figure.png"]
        != second["attribution/Saliency-class1/epoch=0/figure.png"]
    )


def test_a_renderer_of_ones_own_gets_nothing_that_it_could_show(tmp_path):
    class Seeing(Words):
        name = "seeing"
        seen = []

        def suits(self, inputs, attributions):
            self.seen.append(inputs)
            return True

        def find_shares(self, inputs, attributions):
            self.seen.append(inputs)
            return super().find_shares(inputs, attributions)

        def draw(self, drawing):
            self.seen.append(drawing.inputs)
            assert not drawing.shows_inputs
            return super().draw(drawing)

    tokens = torch.randint(1, 4, (12, 5), generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(tokens, torch.arange(12) % 3), 6)
    renderer = Seeing()
    monitor = AttributionMonitor("Occlusion", attribute_args={"sliding_window_shapes": (1,)}, samples="maps_only")
    monitor.data_info = type(monitor.data_info)(kind=renderer)
    fit(tmp_path, Module(nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(15, 3))), loader, monitor)
    assert len(renderer.seen) >= 3
    assert not any(one.any() for one in renderer.seen)
    assert all(one.dtype == torch.int64 for one in renderer.seen)


def test_labels_that_are_the_inputs_are_left_out(tmp_path):
    x = samples((6,)).dataset.tensors[0]

    class Autoencoder(Module):
        def training_step(self, batch, batch_idx):
            return nn.functional.mse_loss(self(batch[0]), batch[1])

    monitor = AttributionMonitor("Saliency", probe=4, target=0, samples="maps_only", batch_to_target=1)
    fit(tmp_path, Autoencoder(nn.Linear(6, 6)), DataLoader(TensorDataset(x, x), 20), monitor)
    assert [path for path in tmp_path.rglob("*.npz") if holds_planted(path)] == []
    assert list(tmp_path.rglob("attributions.npz"))


def test_what_is_left_out_is_told_once(tmp_path, caplog):
    loader = samples((6,))
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        fit(tmp_path, Secretive(6), loader, AttributionMonitor("Saliency", probe=4, samples="none"), epochs=3)
    told = [one.message for one in caplog.records if "samples='none'" in one.message]
    assert len(told) == 1
    assert "numbers alone" in told[0]


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="samples expected one of show, maps_only, none, but got 'map_only'"):
        AttributionMonitor(samples="map_only")

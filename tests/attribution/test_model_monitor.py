"""ModelMonitor in real runs, read back from TensorBoard's files."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lit_xai import ModelMonitor, StructuredPruning
from lit_xai.data import Digits
from lit_xai.models import MLP, Classifier, ResNet

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
QUIET |= {"accelerator": "cpu", "limit_train_batches": 3, "limit_val_batches": 1, "log_every_n_steps": 1}


def residual():
    return ResNet(depth=8, width=4, in_channels=1, num_classes=10)


def run(folder, *callbacks, network=residual, epochs=2, module=None, data=None):
    seed_everything(0, verbose=False)
    logger = TensorBoardLogger(folder, name=None, version="run")
    trainer = Trainer(max_epochs=epochs, callbacks=[*callbacks], logger=logger, **QUIET)
    model = Classifier(network(), num_classes=10) if module is None else module
    trainer.fit(model, Digits(batch_size=32) if data is None else data)
    events = EventAccumulator(str(folder / "run"), size_guidance={"images": 0, "graph": 1})
    events.Reload()
    return model, events, folder / "run"


@pytest.mark.parametrize("network", [residual, lambda: MLP(64, [8], 10)], ids=["convolutions", "perceptron"])
def test_everything_is_there_by_default(tmp_path, network):
    _, events, folder = run(tmp_path, ModelMonitor(projector=True, n=40), network=network)
    assert {"model/filters", "model/activations"} <= set(events.Tags()["images"])
    assert [image.step for image in events.Images("model/filters")] == [2, 5]
    operators = {node.op for node in events.Graph().node}
    assert any("conv" in one.lower() or "linear" in one.lower() for one in operators)
    assert len(list(folder.glob("model/activations-epoch=*.png"))) == 2
    (rows,) = folder.glob("*/*/metadata.tsv")
    (points,) = folder.glob("*/*/tensors.tsv")
    lines = rows.read_text().splitlines()
    assert lines[0] == "index\tlabel\tprediction"
    assert len(lines) == 41
    assert len(points.read_text().splitlines()) == 40
    assert list(folder.glob("*/*/sprite.png"))


def test_the_projector_holds_what_enters_the_last_layer(tmp_path):
    model, _, folder = run(tmp_path, ModelMonitor(projector=True, n=12), network=lambda: MLP(64, [8], 10))
    (points,) = folder.glob("*/*/tensors.tsv")
    (rows,) = folder.glob("*/*/metadata.tsv")
    found = torch.tensor([[float(value) for value in line.split()] for line in points.read_text().splitlines()])
    indices = [int(line.split()[0]) for line in rows.read_text().splitlines()[1:]]
    data = Digits(batch_size=32)
    data.setup("fit")
    images = torch.stack([data.val_dataset[i][0] for i in indices])
    torch.testing.assert_close(found, model.network.layers[:-1](images).detach(), rtol=1e-4, atol=1e-4)


def test_a_run_with_it_is_bit_for_bit_the_run_without(tmp_path):
    watched, _, _ = run(tmp_path / "with", ModelMonitor(projector=True, n=16, every_n_steps=3))
    alone, _, _ = run(tmp_path / "without")
    for name, value in watched.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name]), name
    assert not any(module._forward_hooks for module in watched.modules())


def test_each_switch_leaves_its_part_out(tmp_path):
    _, events, folder = run(tmp_path, ModelMonitor(graph=False, filters=False, activations=False))
    assert not [tag for tag in events.Tags()["images"] if tag.startswith("model/")]
    assert not events.Tags()["graph"]
    assert not list(folder.glob("model/*"))


@pytest.mark.parametrize("shown", ["maps_only", "none"])
def test_samples_may_be_left_out(tmp_path, shown):
    _, events, folder = run(tmp_path, ModelMonitor(projector=True, n=8, samples=shown))
    assert not list(folder.glob("*/*/sprite.png"))
    assert ("model/activations" in events.Tags()["images"]) == (shown == "maps_only")
    assert "model/filters" in events.Tags()["images"]
    assert bool(list(folder.glob("*/*/tensors.tsv"))) == (shown == "maps_only")


def test_the_filters_of_a_pruned_network_are_those_that_are_left(tmp_path):
    pruning = StructuredPruning(pruning_ratio=0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False)
    _, events, _ = run(
        tmp_path, pruning, ModelMonitor(), network=lambda: ResNet(depth=8, width=16, in_channels=1, num_classes=10)
    )
    first, last = events.Images("model/filters")
    assert first.height > last.height  # two rows of filters, then one


class Dicts(LightningModule):
    """A module of somebody else: batches are dicts, the network takes two inputs by name."""

    def __init__(self):
        super().__init__()
        self.user, self.item, self.head = nn.Embedding(5, 4), nn.Embedding(7, 4), nn.Linear(8, 2)

    def forward(self, user, item):
        return self.head(torch.cat([self.user(user), self.item(item)], 1))

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch["user"], batch["item"]), batch["label"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_module_of_somebody_elses_is_shown_as_far_as_it_can_be(tmp_path):
    rows = [{"user": i % 5, "item": i % 7, "label": i % 2} for i in range(32)]
    loader = DataLoader(rows, batch_size=8)
    _, events, folder = run(tmp_path, ModelMonitor(projector=True, n=16), module=Dicts(), data=loader)
    assert "model/activations" in events.Tags()["images"]
    assert "model/filters" not in events.Tags()["images"]  # an embedding reads no image
    assert events.Tags()["graph"]
    assert list(folder.glob("*/*/tensors.tsv"))


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("not to be traced")
        return self.layer(x.flatten(1))


def test_what_cannot_be_shown_is_one_warning(tmp_path):
    with pytest.warns(
        UserWarning, match="cannot show the graph, and training continues. RuntimeError: not to be traced"
    ):
        _, events, _ = run(tmp_path, ModelMonitor(), network=Untraceable)
    assert "model/activations" in events.Tags()["images"]


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="n expected"):
        ModelMonitor(n=0)
    with pytest.raises(ValueError, match="samples expected"):
        ModelMonitor(samples="hide")
    with pytest.raises(ValueError, match="layers"):
        run(tmp_path, ModelMonitor(layers=["no_such_layer"]))

"""A run in TensorBoard, read back from its event files: charts of the user's own metric, and the table of settings."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import AttributionMonitor, KnowledgeDistillation, StructuredPruning

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "log_every_n_steps": 1}


class Module(LightningModule):
    def __init__(self, lr=0.1, nested=None, saved=True):
        super().__init__()
        if saved:
            self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.log("val/loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val/acc", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(logger, *callbacks, module=None, epochs=2, **options):
    data = TensorDataset(torch.randn(32, 6), torch.arange(32) % 3)
    trainer = Trainer(max_epochs=epochs, logger=logger, callbacks=list(callbacks), **{**QUIET, **options})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        trainer.fit(module or Module(), DataLoader(data, 16), DataLoader(data, 16))
    return trainer


def pruning(**options):
    return StructuredPruning(0.5, start_epoch=1, end_epoch=1, round_to=1, report_latency=False, **options)


def read(logger):
    events = EventAccumulator(logger.log_dir, {"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def charts(events):
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}


def table(events):
    tags = (metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG)
    first, second = (events.SummaryMetadata(tag).plugin_data.content for tag in tags)
    experiment = metadata.parse_experiment_plugin_data(first)
    start = metadata.parse_session_start_info_plugin_data(second)
    values = {name: getattr(one, one.WhichOneof("kind")) for name, one in start.hparams.items()}
    assert {info.name for info in experiment.hparam_infos} == values.keys()
    return values, {info.name.tag: (info.display_name, info.description) for info in experiment.metric_infos}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    logger = TensorBoardLogger(folder, name="runs")
    module = Module(lr=0.05, nested={"width": 8, "names": ["a", "b"]})
    monitor = ModelCheckpoint(folder / "ckpt", monitor="val/acc", mode="max")
    trainer = fit(logger, pruning(), KnowledgeDistillation("dense", alpha=0.7), monitor, module=module, epochs=3)
    return logger, read(logger), trainer


def test_the_charts_are_of_the_metric_that_the_user_monitors_and_of_the_cost(pruned):
    _, events, _ = pruned
    assert charts(events) == {
        "val/acc": ["^val/acc$"],
        "cost, as a share of the dense model's": ["^compression/.+_of_dense$"],
    }


def test_cost_is_a_share_of_the_dense_model(pruned):
    _, events, _ = pruned
    for name in ("params", "MACs"):
        shares = [one.value for one in events.Scalars(f"compression/{name}_of_dense")]
        counts = [one.value for one in events.Scalars(f"compression/{name}")]
        assert shares == pytest.approx([count / counts[0] for count in counts])
        assert shares[0] == 1
        assert shares[-1] < 0.8
    assert "compression/size_of_dense" in events.Tags()["scalars"]


def test_the_table_holds_what_module_and_callbacks_were_told_and_what_came_of_it(pruned):
    logger, events, trainer = pruned
    values, metrics = table(events)
    assert values["lr"] == 0.05
    assert values["nested/width"] == 8
    assert values["nested/names"] == "a, b"
    assert values["StructuredPruning.pruning_ratio"] == 0.5
    assert values["KnowledgeDistillation.alpha"] == 0.7
    assert values["KnowledgeDistillation.temperature"] == 1.0
    assert metrics["hp_metric"][0] == "final val/acc"
    assert metrics["summary/size_kB"][0] == "size (kB)"
    (final,) = events.Scalars("hp_metric")  # and never -1
    assert final.value == pytest.approx(float(trainer.callback_metrics["val/acc"]))
    (size,) = events.Scalars("summary/size_kB")
    assert size.value == pytest.approx(events.Scalars("compression/bytes_on_disk")[-1].value / 1000)
    # What loads a module from the folder reads this file: the callbacks' arguments are not the module's.
    assert "StructuredPruning" not in Path(logger.log_dir, "hparams.yaml").read_text()


def test_without_a_monitor_it_is_the_first_validation_metric(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    fit(logger, AttributionMonitor(), module=Module(saved=False))
    events = read(logger)
    assert charts(events) == {"val/loss": ["^val/loss$"]}
    values, metrics = table(events)  # though the module has no hyperparameters
    assert values == {}
    assert "hp_metric" in metrics
    assert len(events.Scalars("hp_metric")) == 1


def test_who_turns_the_metric_off_keeps_a_table_of_ones_own(tmp_path):
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    assert logger._default_hp_metric is False  # the private name that is read here
    fit(logger, pruning())
    with pytest.raises(KeyError):
        table(read(logger))
    logger.log_hyperparams({"own": 1}, {"score": 0.5})
    logger.experiment.flush()
    values, metrics = table(read(logger))
    assert values == {"own": 1}
    assert set(metrics) == {"score"}


def test_the_users_own_final_metric_comes_first(tmp_path):
    class Own(Module):
        def on_train_epoch_end(self):
            self.log("hp_metric", 0.25)

    logger = TensorBoardLogger(tmp_path)
    fit(logger, pruning(), module=Own())
    assert {one.value for one in read(logger).Scalars("hp_metric")} == {0.25}


def test_other_loggers_get_neither_and_the_trainer_is_left_as_it_was(tmp_path):
    csv, board = CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "board")
    fit([csv, board], pruning())
    assert "hp_metric" not in Path(csv.log_dir, "metrics.csv").read_text()
    assert "log_hyperparams" not in vars(board)
    fit(False, pruning(), default_root_dir=tmp_path)


class Failing(TensorBoardLogger):
    """Fails in what the library writes, and does nothing in what Lightning does."""

    experiment = property(lambda self: object())

    def log_metrics(self, metrics, step=None): ...

    def log_hyperparams(self, params, metrics=None, step=None): ...

    def log_graph(self, model, input_array=None): ...

    def save(self): ...

    def finalize(self, status): ...


def test_a_logger_that_fails_ends_no_run(tmp_path):
    with pytest.warns(UserWarning, match="Failing failed to log"):
        fit(Failing(tmp_path), pruning())

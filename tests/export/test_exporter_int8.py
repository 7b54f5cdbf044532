"""Exports with a limit of what int8 may cost, and with weights alone in integers, of real runs."""

import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from planted_layers import Normalized, Plain, accuracy, digits, plant_, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

import lit_xai
from lit_xai import QuantizationAwareTraining
from lit_xai.export.parity import OnnxPredictor

ModelExport = partial(lit_xai.ModelExport, program=False, int8=True)


class Module(LightningModule):
    """A network that is trained already; it learns nothing more."""

    def __init__(self, network):
        super().__init__()
        self.network = network.train()
        for part in network.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = 0.0

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return 0.0 * F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(folder, network, *callbacks, **options):
    trainer = Trainer(
        max_epochs=1,
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"logger": False, "log_every_n_steps": 1, **options},
    )
    module = Module(network)
    # Lightning takes a list for one of loaders.
    sets = [TensorDataset(*map(torch.cat, zip(*batches, strict=True))) for batches in digits()]
    trainer.fit(module, *(DataLoader(one, batch_size=256) for one in sets))
    return trainer


def file_accuracy(folder, name="model.int8.onnx"):
    predict = OnnxPredictor(folder / "export" / name)
    return float(torch.cat([(predict(x).argmax(1) == y).float() for x, y in digits()[1]]).mean())


@pytest.mark.parametrize(
    ("make", "pair", "layers"), [(Normalized, ("deep", "norm"), {"deep"}), (Plain, ("stem", "deep"), {"stem", "deep"})]
)
def test_the_planted_layer_stays_in_float_and_the_file_is_good(make, pair, layers, tmp_path):
    network = plant_(trained(make), *pair)
    fit(tmp_path, network, export := ModelExport(max_drop=0.02))
    reference = accuracy(network)
    assert file_accuracy(tmp_path) >= reference - 0.02
    note = next(one for one in export.report.notes if "left in float" in one)
    assert set(json.loads(note[note.index("[") : note.index("]") + 1])) == {f"network.{name}" for name in layers}
    assert "chosen on the validation data" in note
    assert note in (tmp_path / "export" / "report.md").read_text()
    ignored = {name for name, why in export.report.quantization["float"].items() if why == "ignored"}
    assert ignored == {f"network.{name}" for name in layers}
    assert export.report.blame.is_lossless


def test_the_line_to_paste_is_taken_here(tmp_path):
    network = plant_(trained(Plain), "stem", "deep")
    fit(tmp_path / "a", network, first := ModelExport())
    line = str(first.report.blame).split("ignored_layers=")[1].rstrip(".")
    assert set(json.loads(line)) == {"network.stem", "network.deep"}
    fit(tmp_path / "b", network, second := ModelExport(ignored_layers=json.loads(line)))
    assert second.report.blame.is_lossless
    assert {one.name for one in first.report.blame.layers} == {
        *json.loads(line),
        *(one.name for one in second.report.blame.layers),
    }


def test_where_nothing_is_lost_nothing_is_left_in_float(tmp_path):
    fit(tmp_path, trained(Plain), export := ModelExport(max_drop=0.1))
    assert any(note.startswith("No layer is left in float: accuracy") for note in export.report.notes)
    assert not [why for why in export.report.quantization["float"].values() if why == "ignored"]


def test_weights_alone_are_a_small_file_that_loses_nothing(tmp_path):
    network = plant_(trained(Plain), "stem", "deep")
    fit(tmp_path, network, export := ModelExport(activations="float"))
    assert file_accuracy(tmp_path) == pytest.approx(accuracy(network), abs=0.01)
    said = str(export.report)
    assert "weights 8 bits, symmetric, per output channel; activations in float." in said
    assert "Weights are stored as integers, and the file rounds no activation" in said
    assert "leaves" not in said
    rows = {row.name: row for row in export.report.rows}
    assert rows["int8 (ONNX Runtime)"].bytes < rows["fp32 (ONNX Runtime)"].bytes
    assert [*rows["int8 (ONNX Runtime)"].latency] == [1, 64]


@pytest.mark.parametrize("inside", [None, "network"])
def test_after_training_for_integers_its_own_ranges_are_blamed(inside, tmp_path):
    qat = QuantizationAwareTraining(0, module=inside, calibration_batches=2)
    fit(tmp_path, plant_(trained(Plain), "stem", "deep"), qat, export := ModelExport(int8=False, module=inside))
    assert export.report.blame is not None, export.report.warnings
    assert export.report.blame.ranked[0].name == ("stem" if inside else "network.stem")
    assert all(one.alone is not None and one.snr is not None for one in export.report.blame.layers)
    line = str(export.report.blame).split("ignored_layers=")[1].rstrip(".")
    assert {name.removeprefix("network.") for name in json.loads(line)} == {"stem", "deep"}


def test_figure_and_table_are_in_tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    fit(tmp_path, plant_(trained(Normalized), "deep", "norm"), export := ModelExport(tmp_path / "out"), logger=logger)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0, "images": 0}).Reload()
    assert "compression/layers" in events.Tags()["images"]
    text = events.Tensors("compression/layers/text_summary")[0].tensor_proto.string_val[0].decode()
    assert str(export.report.blame) in text
    assert "network.deep" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_drop": -1}, "max_drop expected a number of at least 0, or None, but got -1."),
        ({"activations": "int"}, "activations expected one of unsigned, symmetric, float, but got 'int'."),
        (
            {"max_drop": 0.1, "metric": accuracy},
            "metric expected a torchmetrics.Metric with higher_is_better, or a function with an attribute of that name,"
            " for max_drop, but got 'accuracy'.",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_the_constructor(arguments, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared in full
        lit_xai.ModelExport(int8=True, **arguments)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("arguments", "others", "said"),
    [
        ({"max_drop": 0.1, "int8": False}, [], "max_drop changes nothing: without int8 nothing is quantized."),
        ({"max_drop": 0.1}, [QuantizationAwareTraining(0)], "int8 and max_drop change nothing: the integers, for cpu"),
        ({"activations": "float", "int8": False}, [], "activations changes nothing: without int8"),
    ],
)
def test_what_changes_nothing_is_said(arguments, others, said, tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, trained(Plain), ModelExport(**arguments), *others, fast_dev_run=1)
    assert [text for text in caplog.messages if text.startswith(f"ModelExport: {said}")]

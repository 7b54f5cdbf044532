import ast
from pathlib import Path

import pytest
import torch
import torchmetrics
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sklearn.metrics import accuracy_score, f1_score, precision_score
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassPrecision

import lit_xai.models
from lit_xai.models import Classifier, LinearModel, Regressor

MACRO = {"num_classes": 10, "average": "macro"}


class Frozen(nn.Module):
    """Logits that no training changes, so that every epoch has the same right answer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 640).sin().view(10, 64) * 3)

    def forward(self, inputs):
        return F.linear(inputs.flatten(1), self.weight)


def frozen(**kwargs):
    return Classifier(Frozen(), num_classes=10, optimizer=lambda p: torch.optim.SGD(p, lr=0.0), **kwargs)


def answers(data):
    inputs, labels = next(iter(DataLoader(data, batch_size=len(data))))
    with torch.no_grad():
        logits = Frozen()(inputs)
    return F.cross_entropy(logits, labels).item(), logits.argmax(dim=1), labels


@pytest.mark.parametrize("kwargs", [{}, {"accumulate_grad_batches": 4}, {"max_epochs": 3}, {"precision": "64-true"}])
@pytest.mark.parametrize("batch_size", [128, 500])
def test_loss_and_metrics_of_every_epoch_are_those_of_the_whole_data(digits, fit, kwargs, batch_size):
    metrics = {  # three that share one state in a MetricCollection, which has to survive the reset of every epoch
        "f1": MulticlassF1Score(**MACRO),
        "precision": MulticlassPrecision(**MACRO),
        "balanced": MulticlassAccuracy(**MACRO),
    }
    seen, data = [], Subset(digits, range(600))  # the last batch is smaller than the others
    module = frozen(metrics=metrics)
    module.on_train_epoch_end = lambda: seen.append(dict(module.trainer.callback_metrics))
    logged = fit(module, data, batch_size=batch_size, **kwargs).callback_metrics
    loss, predicted, labels = answers(data)
    for stage in ("train", "val"):
        assert logged[f"{stage}/loss"].item() == pytest.approx(loss, rel=1e-4)
        assert logged[f"{stage}/f1"].item() == pytest.approx(f1_score(labels, predicted, average="macro"), rel=1e-5)
        precision = precision_score(labels, predicted, average="macro", zero_division=0)
        assert logged[f"{stage}/precision"].item() == pytest.approx(precision, rel=1e-5)
    assert len(logged) == 8
    assert all(epoch["val/f1"] == logged["val/f1"] for epoch in seen)


@pytest.mark.parametrize(("stage", "prefix"), [("validate", "val"), ("test", "test")])
def test_validate_and_test_log_their_own_stage(digits, fit, stage, prefix):
    module = frozen()
    trainer = fit(module, digits, limit_train_batches=1)
    found = getattr(trainer, stage)(module, DataLoader(digits, batch_size=500), verbose=False)[0]
    _, predicted, labels = answers(digits)
    assert found.keys() == {f"{prefix}/loss", f"{prefix}/accuracy"}
    assert found[f"{prefix}/accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-6)


def test_two_processes_log_what_one_logs(digits, fit):
    data = Subset(digits, range(600))
    trainer = fit(frozen(), data, batch_size=75, devices=2, strategy="ddp_fork", max_epochs=2)
    loss, predicted, labels = answers(data)
    for stage in ("train", "val"):
        assert trainer.callback_metrics[f"{stage}/loss"].item() == pytest.approx(loss)
        assert trainer.callback_metrics[f"{stage}/accuracy"].item() == pytest.approx(accuracy_score(labels, predicted))


def test_progress_bar_shows_losses_and_validation_metrics(digits, fit):
    trainer = fit(frozen(), digits)
    assert trainer.progress_bar_metrics.keys() == {"train/loss", "val/loss", "val/accuracy"}


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        (MulticlassAccuracy(10), {"MulticlassAccuracy"}),
        ([MulticlassAccuracy(10), MulticlassF1Score(10)], {"MulticlassAccuracy", "MulticlassF1Score"}),
        ({"top3": MulticlassAccuracy(10, top_k=3), "auroc": torchmetrics.AUROC("multiclass", num_classes=10)}, None),
        ([], set()),
    ],
)
def test_metrics_are_one_several_or_named(digits, fit, metrics, names):
    names = set(metrics) if names is None else names
    trainer = fit(frozen(metrics=metrics), digits, limit_train_batches=2, limit_val_batches=2)
    assert {k for k in trainer.callback_metrics if "loss" not in k} == {
        f"{s}/{n}" for s in ("train", "val") for n in names
    }


@pytest.mark.parametrize("metrics", ["accuracy", [MulticlassAccuracy(10)] * 2, {"accuracy": 1}, 3])
def test_metrics_of_another_kind_are_refused(metrics):
    with pytest.raises(ValueError, match="metrics expected a torchmetrics Metric, a list of different ones or a dict"):
        Classifier(LinearModel(64, 10), 10, metrics=metrics)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": LinearModel}, "network expected a torch.nn.Module, but got <class"),
        ({"optimizer": "adam"}, r"optimizer expected a callable .* functools.partial\(torch.optim.SGD, lr=0.1\)"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)], lr=1.0)}, "optimizer expected a callable .* but got SGD"),
        ({"lr_scheduler": "cosine"}, "lr_scheduler expected a callable of the optimizer"),
    ],
)
@pytest.mark.parametrize("module", [lambda **kwargs: Classifier(num_classes=10, **kwargs), Regressor])
def test_arguments_of_another_kind_are_named(module, arguments, message):
    with pytest.raises(TypeError, match=message):
        module(**{"network": LinearModel(64, 10)} | arguments)


def test_the_interval_is_one_of_two():
    with pytest.raises(ValueError, match="lr_scheduler_interval expected 'epoch', 'step' or None, but got 'batch'"):
        Classifier(LinearModel(64, 10), 10, lr_scheduler_interval="batch")


class Dicts(Dataset):
    def __init__(self, data, names=("inputs", "labels")):
        self.data, self.names = data, names

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return dict(zip(self.names, self.data[index], strict=True)) | {"index": index}


@pytest.mark.parametrize("key", ["label", "labels", "y", "target", "targets"])
def test_dict_batches_give_what_the_network_accepts(digits, fit, key):
    module = Classifier(LinearModel(64, 10), num_classes=10)
    logged = fit(module, Dicts(digits, ("inputs", key)), limit_train_batches=2).callback_metrics
    again = Classifier(LinearModel(64, 10), num_classes=10)
    again.network.load_state_dict(module.network.state_dict())
    fit(again, digits, limit_train_batches=0)
    predicted = again(digits[:][0]).argmax(dim=1)
    assert logged["val/accuracy"].item() == pytest.approx(accuracy_score(digits[:][1], predicted), abs=1e-6)


def test_inputs_and_output_can_be_named(digits, fit):
    class Odd(LinearModel):
        def forward(self, inputs):
            return {"features": inputs, "scores": super().forward(inputs)}

    module = Classifier(Odd(64, 10), num_classes=10, batch_to_inputs="image", output="scores")
    fit(module, Dicts(digits, ("image", "label")), limit_train_batches=2, limit_val_batches=1)
    assert module(digits[:2][0]).shape == (2, 10)


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, left, right):
        return self.left(left) + self.right(right)


def test_a_network_with_two_inputs_takes_the_label_after_them(fit):
    data = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.randn(64, 4), torch.randn(64))
    assert "val/mae" in fit(Regressor(Tower()), data).callback_metrics


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (torch.zeros(4, 64), r"a batch of Tensor\[4, 64\] float32"),
        ([torch.zeros(4, 64)], r"a batch of list\(Tensor\[4, 64\] float32\)"),
        ({"inputs": torch.zeros(4, 64), "klass": torch.zeros(4)}, r"a batch of dict\(inputs: .*, klass: "),
    ],
)
def test_a_batch_without_labels_says_where_they_are_looked_for(batch, found):
    with pytest.raises(MisconfigurationException, match=rf"labels.* one of the keys \['label', .* {found}"):
        Classifier(LinearModel(64, 10), 10).training_step(batch, 0)


def test_several_dataloaders_are_refused(digits, fit):
    module = frozen()
    trainer = fit(module, digits, limit_train_batches=1)
    with pytest.raises(MisconfigurationException, match="expected one val dataloader, but got several"):
        trainer.validate(module, [DataLoader(digits, 500)] * 2, verbose=False)


def test_a_checkpoint_holds_plain_data_and_loads_with_the_network(digits, fit, tmp_path):
    weights = torch.linspace(1, 2, 10).numpy()
    module = frozen(class_weights=weights, label_smoothing=0.1, metrics=MulticlassF1Score(10))
    trainer = fit(module, digits, limit_train_batches=1)
    trainer.save_checkpoint(tmp_path / "module.ckpt")
    saved = torch.load(tmp_path / "module.ckpt", weights_only=True)
    assert list(saved["state_dict"]) == ["network.weight"]
    again = Classifier.load_from_checkpoint(tmp_path / "module.ckpt", network=Frozen())
    assert again.hparams == module.hparams
    assert torch.equal(again.class_weights, module.class_weights)
    assert again.label_smoothing == 0.1


def test_functions_stay_out_of_the_checkpoint(digits, fit, tmp_path):
    module = frozen(batch_to_inputs=lambda batch: batch[0], output=lambda logits: logits)
    fit(module, digits, limit_train_batches=1).save_checkpoint(tmp_path / "module.ckpt")
    assert {"batch_to_inputs", "output"}.isdisjoint(torch.load(tmp_path / "module.ckpt")["hyper_parameters"])
    assert frozen(output=1).hparams["output"] == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo, at a graph break
def test_compiled_module_logs_the_same(digits, fit):
    data = Subset(digits, range(256))
    plain = fit(frozen(), data).callback_metrics
    compiled = fit(torch.compile(frozen(), backend="eager"), data).callback_metrics
    assert {k: v.item() for k, v in compiled.items()} == pytest.approx({k: v.item() for k, v in plain.items()})


def test_heavy_libraries_are_imported_inside_functions_only():
    heavy = {"captum", "matplotlib", "sklearn", "transformers", "onnx", "torch_pruning", "torchao"}
    for file in Path(lit_xai.models.__file__).parent.glob("*.py"):
        statements = [
            node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = [getattr(node, "module", None) or node.names[0].name for node in statements]
        assert heavy.isdisjoint(name.partition(".")[0] for name in names), file.name

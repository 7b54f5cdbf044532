"""The models as a LightningCLI builds them from YAML, with data, Trainer and checkpoint as in a user's project."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.models import Classifier, Regressor

MLP_SPEC = {"class_path": "lit_xai.models.MLP", "init_args": {"in_features": 64, "hidden": [8]}}
CLASSIFIER = {"network": MLP_SPEC, "num_classes": 10}


class Data(LightningDataModule):
    dataset: TensorDataset

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=128)

    val_dataloader = train_dataloader


@pytest.fixture
def command_line(tmp_path, digits, monkeypatch):
    """Fit a model from its YAML with a plain LightningCLI, by a subcommand or (faster to build) without one."""
    monkeypatch.setattr(sys, "argv", ["fit"])
    monkeypatch.chdir(tmp_path)

    def run(model, dataset=digits, model_class=Classifier, subcommand=False) -> LightningCLI:
        monkeypatch.setattr(Data, "dataset", dataset, raising=False)
        trainer = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "limit_train_batches": 4, "logger": False}
        trainer |= {"enable_progress_bar": False, "enable_model_summary": False}
        Path("config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "model": model, "trainer": trainer}))
        cli = LightningCLI(
            model_class,
            Data,
            args=["fit"] * subcommand + ["--config", "config.yaml"],
            run=subcommand,
            auto_configure_optimizers=False,
            save_config_callback=None,
        )
        if not subcommand:
            cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        return cli

    return run


def checkpoint(cli: LightningCLI) -> str:
    return cli.trainer.checkpoint_callback.best_model_path


def assert_same_weights(module, other):
    expected = other.state_dict()
    assert expected.keys() == module.state_dict().keys()
    assert all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("model_class", [Classifier, None])
def test_a_checkpoint_of_the_command_line_loads_by_itself(command_line, model_class):
    model = CLASSIFIER | {"label_smoothing": 0.1, "class_weights": [1.0] * 9 + [2.0]}
    model = model if model_class else {"class_path": "lit_xai.models.Classifier", "init_args": model}
    cli = command_line(model, model_class=model_class, subcommand=True)
    module = Classifier.load_from_checkpoint(checkpoint(cli))
    assert_same_weights(cli.model, module)
    assert module.label_smoothing == 0.1
    assert module.class_weights[-1] == 2.0
    again = Classifier.load_from_checkpoint(checkpoint(cli), network=cli.model.network)
    assert again.network is cli.model.network


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}, {"lr": 0.1, "momentum": 0.9}),
        ({"class_path": "AdamW", "init_args": {"weight_decay": 0.5}}, {"lr": 0.001, "weight_decay": 0.5}),
        # Nothing may be left of the default, Adam, whose learning rate and weight decay are others.
        ("torch.optim.RMSprop", {"lr": 0.01}),
        ("AdamW", {"weight_decay": 0.01}),
        (None, {"lr": 0.001, "weight_decay": 0}),
    ],
)
def test_optimizers_by_import_path(command_line, optimizer, expected):
    trainer = command_line(CLASSIFIER | {"optimizer": optimizer}).trainer
    name = optimizer["class_path"] if isinstance(optimizer, dict) else optimizer or "Adam"
    assert type(trainer.optimizers[0]).__name__ == name.rpartition(".")[2]
    group = trainer.optimizers[0].param_groups[0]
    assert {key: group[key] for key in expected} == expected


TORCH = "torch.optim.lr_scheduler."


@pytest.mark.parametrize(
    ("lr_scheduler", "interval", "expected"),
    [
        ({"class_path": TORCH + "OneCycleLR", "init_args": {"max_lr": 0.1}}, "step", {"total_steps": 8}),
        (
            {"class_path": TORCH + "OneCycleLR", "init_args": {"max_lr": 0.1, "total_steps": 50}},
            "step",
            {"total_steps": 50},
        ),
        ({"class_path": TORCH + "CosineAnnealingLR", "init_args": {"T_max": 5}}, "epoch", {"T_max": 5}),
        ({"class_path": "lit_xai.models.CosineAnnealing", "init_args": {"eta_min": 0.01}}, "epoch", {"T_max": 2}),
        ("CosineAnnealing", "epoch", {"T_max": 2}),
        ({"class_path": TORCH + "StepLR", "init_args": {"step_size": 1}}, "epoch", {"step_size": 1}),
        ({"class_path": TORCH + "ReduceLROnPlateau", "init_args": {"patience": 3}}, "epoch", {"patience": 3}),
        (
            {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": {"monitor": "train/loss"}},
            "epoch",
            {},
        ),
    ],
)
def test_schedulers_by_import_path(command_line, lr_scheduler, interval, expected):
    cli = command_line(CLASSIFIER | {"lr_scheduler": lr_scheduler})
    config = cli.trainer.lr_scheduler_configs[0]
    assert config.interval == interval
    assert {key: vars(config.scheduler)[key] for key in expected} == expected
    assert_same_weights(cli.model, Classifier.load_from_checkpoint(checkpoint(cli)))


def test_cosine_per_step(command_line):
    cli = command_line(CLASSIFIER | {"lr_scheduler": "lit_xai.models.CosineAnnealing", "lr_scheduler_interval": "step"})
    assert cli.trainer.lr_scheduler_configs[0].scheduler.T_max == 8


MULTICLASS = "torchmetrics.classification.Multiclass"


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        (
            {"class_path": "torchmetrics.F1Score", "init_args": {"task": "multiclass", "num_classes": 10}},
            "MulticlassF1Score",
        ),
        ([{"class_path": MULTICLASS + "Recall", "init_args": {"num_classes": 10}}], "MulticlassRecall"),
        ({"top2": {"class_path": MULTICLASS + "Accuracy", "init_args": {"num_classes": 10, "top_k": 2}}}, "top2"),
    ],
)
def test_metrics_by_import_path(command_line, metrics, name):
    cli = command_line(CLASSIFIER | {"metrics": metrics})
    assert {k for k in cli.trainer.callback_metrics if k.startswith("val/")} == {"val/loss", f"val/{name}"}
    assert list(Classifier.load_from_checkpoint(checkpoint(cli)).val_metrics) == [f"val/{name}"]


@pytest.mark.parametrize(
    "loss", ["torch.nn.functional.l1_loss", {"class_path": "torch.nn.HuberLoss", "init_args": {"delta": 2.0}}]
)
def test_regressor_and_its_loss_by_import_path(command_line, loss):
    network = {"class_path": "lit_xai.models.LinearModel", "init_args": {"in_features": 3}}
    data = TensorDataset(torch.randn(64, 3), torch.randn(64))
    cli = command_line({"network": network, "loss": loss}, data, Regressor)
    module = Regressor.load_from_checkpoint(checkpoint(cli))
    expected = torch.nn.functional.l1_loss if isinstance(loss, str) else torch.nn.HuberLoss(delta=2.0)
    values, zeros = torch.tensor([0.5, 4.0]), torch.zeros(2)
    assert module.loss(values, zeros) == expected(values, zeros)


SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TRANSFORMERS = {
    "ViTForImageClassification": {
        "class_path": "transformers.ViTConfig",
        "init_args": SMALL | {"hidden_size": 16, "image_size": 8, "patch_size": 4, "num_channels": 1},
        "dict_kwargs": {"num_labels": 10},
    },
    "ResNetForImageClassification": {
        "class_path": "transformers.ResNetConfig",
        "init_args": {"num_channels": 1, "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]},
        "dict_kwargs": {"num_labels": 10},
    },
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformers_image_model_by_import_path(command_line, name):
    network = {"class_path": f"transformers.{name}", "init_args": {"config": TRANSFORMERS[name]}}
    cli = command_line({"network": network, "num_classes": 10})
    assert type(cli.model.network).__name__ == name
    assert_same_weights(cli.model, Classifier.load_from_checkpoint(checkpoint(cli)))
    assert cli.model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


class Tokens(torch.utils.data.Dataset):
    """Eight tokens, and whether the first of them is the most frequent one."""

    def __len__(self):
        return 256

    def __getitem__(self, index):
        ids = torch.randint(5, 10, (8,), generator=torch.Generator().manual_seed(index))
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": (ids[0] == ids.mode().values).long(),
        }


def test_a_transformers_text_model_takes_its_dict_batches(command_line):
    config = {
        "class_path": "transformers.BertConfig",
        "init_args": SMALL | {"hidden_size": 16, "vocab_size": 10, "max_position_embeddings": 8},
    }
    network = {"class_path": "transformers.BertForSequenceClassification", "init_args": {"config": config}}
    cli = command_line({"network": network, "num_classes": 2}, Tokens())
    logged = cli.trainer.callback_metrics
    batch = next(iter(DataLoader(Tokens(), batch_size=len(Tokens()))))
    with torch.no_grad():
        expected = cli.model.network.eval()(**batch)
    assert logged["val/loss"].item() == pytest.approx(expected.loss.item(), rel=1e-5)
    accuracy = (expected.logits.argmax(dim=1) == batch["labels"]).float().mean().item()
    assert logged["val/accuracy"].item() == pytest.approx(accuracy)
    assert_same_weights(cli.model, Classifier.load_from_checkpoint(checkpoint(cli)))


def test_bad_values_are_refused_before_training(command_line, capsys):
    with pytest.raises(ValueError, match="depth expected 6n"):
        command_line(
            {"network": {"class_path": "lit_xai.models.ResNet", "init_args": {"depth": 21}}, "num_classes": 10}
        )
    with pytest.raises(SystemExit):
        command_line(CLASSIFIER | {"task": "multi"})
    assert "multiclass" in capsys.readouterr().err

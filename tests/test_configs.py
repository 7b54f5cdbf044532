"""The configurations as files: each is complete, says what it does, and its command runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import lit_xai
from lit_xai.cli import main
from lit_xai.cli.configs import find_config, known_configs
from lit_xai.cli.run import start

CONFIGS = [
    "adult",
    "attributions",
    "base",
    "breast_cancer",
    "cifar10",
    "compress",
    "diabetes",
    "digits",
    "distillation",
    "export",
    "faithful",
    "fashion_mnist",
    "japanese_vowels",
    "mlp",
    "mnist",
    "model",
    "movielens",
    "phrases",
    "pruning",
    "quantization",
    "report",
    "retention",
    "reviews",
    "text",
    "transformers",
    "translation",
    "two_tower",
]
QUICK = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # Lightning's LightningCLI calls jsonargparse by names that its newest releases call deprecated.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    yield tmp_path
    torch.use_deterministic_algorithms(False)


def commands(name):
    return re.findall(r"^#   lit-xai (.+)$", Path(find_config(name)).read_text(), re.MULTILINE)


def class_paths(node):
    if isinstance(node, dict):
        yield from [node["class_path"]] if "class_path" in node else []
        for value in node.values():
            yield from class_paths(value)
    elif isinstance(node, list):
        for value in node:
            yield from class_paths(value)


def test_these_are_shipped():
    assert known_configs() == CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_what_it_does_and_gives_a_command_that_parses(name, capsys):
    assert Path(find_config(name)).read_text().startswith("# ")
    assert commands(name)
    for command in commands(name):
        options = command.replace("my_module.MyModel", "BoringModel").replace("my_module.MyData", "BoringDataModule")
        import lightning.pytorch.demos.boring_classes  # noqa: F401 - known by their short names then

        with pytest.raises(SystemExit) as end:
            main([*options.split(), "--print_config"])
        assert end.value.code == 0, capsys.readouterr().err
        printed = yaml.safe_load(capsys.readouterr().out)
        given = yaml.safe_load(Path(find_config(name)).read_text())
        assert set(given) <= set(printed)


@pytest.mark.parametrize("name", CONFIGS)
def test_class_paths_are_written_in_full_so_that_a_config_stacks_on_any_command_line(name):
    paths = list(class_paths(yaml.safe_load(Path(find_config(name)).read_text())))
    assert paths
    assert all("." in path for path in paths)


@pytest.mark.parametrize("name", CONFIGS)
def test_overlays_add_callbacks_and_do_not_replace_them(name):
    assert "callbacks" not in yaml.safe_load(Path(find_config(name)).read_text()).get("trainer", {})


@pytest.mark.parametrize("network", [[], ["--config=transformers"]])
def test_digits_train_with_attributions_and_the_run_can_be_repeated_from_its_folder(network, folder):
    configs = ["--config=base", "--config=digits", *network, "--config=attributions"]
    cli = start(["fit", *configs, *QUICK, "--trainer.log_every_n_steps=1", "--data.train_size=0.2"])
    assert len(list(folder.glob("logs/version_0/attribution/IntegratedGradients/epoch=0*/figure.png"))) == 1
    again = start(["fit", "--config=logs/version_0/config.yaml"])
    for name, tensor in cli.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    assert (folder / "logs/version_1/config.yaml").read_text() == (folder / "logs/version_0/config.yaml").read_text()


OLD = """
trainer:
  callbacks+:
  - class_path: lit_xai.callbacks.QuantizationAwareTraining
    init_args:
      start_epoch: 0
      freeze_epoch: 1
      warm_up_batches: 2
"""


@pytest.mark.parametrize("overlay", [[], ["--config=quantization"]])
def test_a_config_of_release_0_1_works_and_warns_of_what_was_renamed(overlay, folder):
    (folder / "old.yaml").write_text(OLD)
    option = ["--trainer.callbacks.warm_up_batches=2", "--trainer.callbacks.start_epoch=0"]
    configs = [*overlay, *option] if overlay else ["--config=old.yaml"]
    with pytest.warns(FutureWarning, match="warm_up_batches is now calibration_batches"):
        cli = start(["fit", "--config=base", "--config=digits", *configs, *QUICK, "--trainer.log_every_n_steps=1"])
    (callback,) = [one for one in cli.trainer.callbacks if isinstance(one, lit_xai.QuantizationAwareTraining)]
    assert callback.calibration_batches == 2


SCRIPT = """
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset


class Net(LightningModule):
    def __init__(self, width: int = 4):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    validation_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.rand(16, 3), torch.arange(16) % 2), batch_size=8)

    val_dataloader = train_dataloader


if __name__ == "__main__":
    LightningCLI(Net)
"""


def test_attributions_go_on_top_of_somebody_elses_command_line(folder):
    (folder / "script.py").write_text(SCRIPT)
    (folder / "own.yaml").write_text("trainer:\n  callbacks:\n  - class_path: LearningRateMonitor\n")
    command = ["script.py", "fit", "--config=own.yaml", f"--config={find_config('attributions')}", *QUICK]
    environment = {"PYTHONPATH": str(Path(lit_xai.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert len(list(folder.rglob("figure.png"))) == 1
    (config,) = folder.rglob("config.yaml")
    assert "LearningRateMonitor" in config.read_text()

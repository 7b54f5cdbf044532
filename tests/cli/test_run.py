from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from lit_xai.cli.run import start
from lit_xai.models import CosineAnnealing

OWN = ("--model=own_module.Net", "--data=own_module.Data")
TENSORBOARD = "--trainer.logger=lightning.pytorch.loggers.TensorBoardLogger"
LOGS = (TENSORBOARD, "--trainer.logger.save_dir=logs", "--trainer.logger.name=null")


def the_one(pattern):
    (found,) = Path().rglob(pattern)
    return found


def saved_weights(checkpoint):
    return torch.load(checkpoint)["state_dict"]


def test_every_command_runs_on_an_own_module_from_its_folder(fit, lit_xai, capsys):
    assert fit(*LOGS) == 0
    assert Path("logs/version_0/config.yaml").is_file()
    checkpoint = str(the_one("*.ckpt"))
    for command in ("validate", "test", "predict"):
        assert lit_xai(command, "--config=logs/version_0/config.yaml", "--ckpt_path", checkpoint) == 0
    assert "val/loss" in capsys.readouterr().out


def test_predictions_are_saved_in_the_run_folder(folder, lit_xai, capsys):
    for expected in ("predictions.pt", "predictions-v1.pt"):
        assert lit_xai("predict", *OWN, "--trainer.logger=false", "--trainer.default_root_dir=out") == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith(f": out/{expected}")
        batches = torch.load(f"out/{expected}", weights_only=True)
        assert [batch.shape for batch in batches] == [(8, 2), (8, 2)]


@pytest.mark.parametrize(
    "option",
    ["--return_predictions=false", "--trainer.callbacks=own_module.Writer", "--trainer.fast_dev_run=true"],
)
def test_predictions_are_not_saved_if_a_callback_does_or_the_user_declines(option, folder, lit_xai, capsys):
    with (folder / "own_module.py").open("a") as file:
        file.write(WRITER)
    assert lit_xai("predict", *OWN, "--trainer.logger=false", option) == 0
    assert "predictions" not in capsys.readouterr().out
    assert not list(folder.rglob("predictions*.pt"))


WRITER = """
from lightning.pytorch.callbacks import BasePredictionWriter

class Writer(BasePredictionWriter):
    def write_on_batch_end(self, *args):
        pass
"""


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_without_a_checkpoint_it_logs_whose_weights_are_used(command, fit, lit_xai, caplog):
    notice = "Net has the weights it was built with, untrained unless it loads its own: name others with --ckpt_path."
    with caplog.at_level("INFO"):
        assert fit("--trainer.logger=false") == 0
        assert notice not in caplog.messages
        assert lit_xai(command, *OWN, "--trainer.logger=false") == 0
        assert caplog.messages.count(notice) == 1
        caplog.clear()
        assert lit_xai(command, *OWN, "--trainer.logger=false", f"--ckpt_path={the_one('*.ckpt')}") == 0
    assert notice not in caplog.messages


def test_the_bar_in_a_file_is_a_few_lines_an_epoch(folder, capsys):
    bar = "--trainer.callbacks=lightning.pytorch.callbacks.TQDMProgressBar"
    quiet = ("--trainer.logger=false", "--trainer.accelerator=cpu", "--trainer.enable_model_summary=false")
    assert start(["fit", *OWN, "--data.n=800", "--trainer.max_epochs=1", bar, *quiet])
    said = capsys.readouterr().out
    assert "100/100" in said
    assert "50/100" not in said


def test_the_saved_config_repeats_the_run(fit, lit_xai):
    assert fit(*LOGS, "--trainer.max_epochs=2") == 0
    config = yaml.safe_load(Path("logs/version_0/config.yaml").read_text())
    assert config["seed_everything"] == 0
    assert lit_xai("fit", "--config=logs/version_0/config.yaml") == 0
    assert lit_xai("fit", "--config=logs/version_0/config.yaml", "--seed_everything=1") == 0
    first, again, other = (saved_weights(next(Path(f"logs/version_{i}").rglob("*.ckpt"))) for i in range(3))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    repeated = yaml.safe_load(Path("logs/version_1/config.yaml").read_text())
    assert repeated == config


def test_printed_configs_stack_and_are_a_fixed_point(folder, fit, lit_xai, capsys):
    (folder / "bar.yaml").write_text("trainer:\n  callbacks+:\n  - class_path: TQDMProgressBar\n")
    (folder / "lr.yaml").write_text("trainer:\n  callbacks+:\n  - class_path: LearningRateMonitor\n")
    assert fit("--config=base", "--config=bar.yaml", "--config=lr.yaml", "--print_config") == 0
    printed = capsys.readouterr().out
    callbacks = [c["class_path"].rpartition(".")[2] for c in yaml.safe_load(printed)["trainer"]["callbacks"]]
    assert callbacks == ["TQDMProgressBar", "LearningRateMonitor"]
    (folder / "all.yaml").write_text(printed)
    assert lit_xai("fit", "--config=all.yaml", "--print_config") == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("logger", "expected"),
    [
        (["--trainer.logger=false"], ["config-v1.yaml", "config-v2.yaml", "config.yaml"]),
        ([*LOGS, "--trainer.logger.version=7"], [f"logs/version_7/config{n}.yaml" for n in ("-v1", "-v2", "")]),
        (
            ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.logger.name=own"],
            [f"logs/own/version_{i}/config.yaml" for i in range(3)],
        ),
    ],
)
# Running into the folder of another run is on purpose.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_run_folder_keeps_the_config_of_every_run(logger, expected, fit):
    for width in (2, 3, 4):
        assert fit(*logger, f"--model.width={width}", "--trainer.default_root_dir=.") == 0
    configs = sorted(Path().rglob("config*.yaml"))
    assert [str(path) for path in configs] == expected
    widths = [yaml.safe_load(path.read_text())["model"]["init_args"]["width"] for path in configs]
    assert sorted(widths) == [2, 3, 4]


def test_a_run_that_is_only_tried_out_leaves_no_config(fit):
    assert fit("--trainer.fast_dev_run=true") == 0
    assert not list(Path().rglob("config*.yaml"))


@pytest.mark.parametrize("built_in", ["init", "setup", "configure_model"])
def test_an_optimizer_and_a_schedule_by_name_work_whenever_the_layers_are_built(built_in, folder, monkeypatch):
    (folder / "configs").mkdir()
    (folder / "configs" / "steps.yaml").write_text(
        """
optimizer:
  class_path: torch.optim.AdamW
  init_args: {lr: 0.01, weight_decay: 0.5}
lr_scheduler:
  class_path: torch.optim.lr_scheduler.OneCycleLR
  init_args: {max_lr: 0.02}
"""
    )
    cli = start(["fit", *OWN, f"--model.built_in={built_in}", "--config=steps", "--trainer.max_epochs=3", *_QUIET])
    (optimizer,) = cli.trainer.optimizers
    (scheduler,) = cli.trainer.lr_scheduler_configs
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in cli.model.parameters()}
    assert scheduler.interval == "step"
    assert scheduler.scheduler.total_steps == scheduler.scheduler.last_epoch == 6


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--lr_scheduler=StepLR", "--lr_scheduler.step_size=1"], torch.optim.lr_scheduler.StepLR),
        (["--lr_scheduler=CosineAnnealing"], CosineAnnealing),
        (
            ["--lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--lr_scheduler.monitor=val/loss"],
            torch.optim.lr_scheduler.ReduceLROnPlateau,
        ),
    ],
)
def test_any_schedule(options, expected, folder):
    cli = start(["fit", *OWN, "--optimizer=SGD", "--optimizer.lr=0.1", *options, "--trainer.max_epochs=2", *_QUIET])
    (scheduler,) = cli.trainer.lr_scheduler_configs
    assert isinstance(scheduler.scheduler, expected)
    assert scheduler.interval == "epoch"


_QUIET = (
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)


@pytest.mark.parametrize("built_in", ["init", "setup", "configure_model"])
def test_init_from_takes_the_weights_and_nothing_else(built_in, folder):
    trained = start(["fit", *OWN, "--trainer.max_epochs=3", *_QUIET])
    checkpoint = str(the_one("*.ckpt"))
    fresh = [f"--init_from={checkpoint}", "--model.lr=0", "--trainer.max_epochs=2", "--trainer.default_root_dir=afresh"]
    afresh = start(["fit", *OWN, *_QUIET, f"--model.built_in={built_in}", *fresh])
    weights = afresh.model.state_dict()
    for name, tensor in trained.model.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=0)  # a learning rate of 0 leaves them there
    assert afresh.trainer.current_epoch == 2
    assert afresh.trainer.global_step == 4
    assert all(state["lr"] == 0 for state in afresh.trainer.optimizers[0].param_groups)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_init_from_refuses_what_does_not_fit(fit, capsys):
    assert fit("--trainer.logger=false") == 0
    checkpoint = the_one("*.ckpt")
    assert fit("--trainer.logger=false", f"--init_from={checkpoint}", "--model.width=5") == 1
    assert (
        f"lit-xai: error: the run cannot start from '{checkpoint}': The checkpoint does not fit Net: 'layers.0.weight'"
        " has shape (4, 3) in the file, but (5, 3) in the model. Build Net with the arguments that it was trained with:"
        " width=4 rather than 5.\n"
    ) in capsys.readouterr().err


def test_a_trained_checkpoint_is_not_resumed_in_silence(fit, capsys):
    options = ("--trainer.logger=false", "--trainer.max_epochs=2")
    assert fit(*options) == 0
    checkpoint = the_one("*.ckpt")
    assert fit(*options, f"--ckpt_path={checkpoint}") == 2
    assert (
        f"lit-xai: error: '{checkpoint}' is already trained 2 of 2 epochs: raise --trainer.max_epochs, or start afresh"
        f" from its weights with --init_from {checkpoint}.\n"
    ) in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(("done", "wanted", "code"), [(2, 2, 2), (2, 4, 2), (1, 3, 2), (1, 2, 0)])
def test_a_schedule_of_fixed_length_is_not_made_longer(done, wanted, code, fit, capsys):
    schedule = ("=torch.optim.lr_scheduler.OneCycleLR", ".max_lr=0.1", ".total_steps=4")
    options = ("--trainer.logger=false", "--optimizer=SGD", "--optimizer.lr=0.1")
    options += tuple(f"--lr_scheduler{one}" for one in schedule)
    assert fit(*options, f"--trainer.max_epochs={done}") == 0
    checkpoint = the_one("*.ckpt")
    assert fit(*options, f"--trainer.max_epochs={wanted}", f"--ckpt_path={checkpoint}") == code
    said = (
        f"lit-xai: error: '{checkpoint}' has a learning rate schedule of 4 steps, which cannot be extended to"
        f" --trainer.max_epochs {wanted}: start afresh from its weights with --init_from {checkpoint}.\n"
    )
    assert (said in capsys.readouterr().err) is (code == 2)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resume_goes_on_where_it_stopped(folder):
    whole = start(["fit", *OWN, "--trainer.max_epochs=3", "--seed_everything=1", *_QUIET])
    start(["fit", *OWN, "--trainer.max_epochs=1", "--seed_everything=1", "--trainer.default_root_dir=part", *_QUIET])
    checkpoint = the_one("part/**/*.ckpt")
    options = ["--trainer.max_epochs=3", f"--ckpt_path={checkpoint}", "--trainer.default_root_dir=part", *_QUIET]
    resumed = start(["fit", *OWN, *options])
    assert resumed.trainer.global_step == whole.trainer.global_step == 6


@pytest.mark.parametrize("weights_only", [True, False])
def test_checkpoints_of_a_script_are_tested_too(weights_only, folder, lit_xai, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(folder))
    import own_module

    trainer = Trainer(
        max_epochs=1, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False
    )
    model = own_module.Net(width=6)
    if not weights_only:
        model.hparams["anything"] = Trainer  # what the safe reader refuses
    trainer.fit(model, own_module.Data())
    command = ["test", *OWN, "--model.width=6", "--trainer.logger=false", f"--ckpt_path={the_one('*.ckpt')}"]
    if not weights_only:
        assert lit_xai(*command) == 2
        assert "add --weights_only false" in capsys.readouterr().err
        command += ["--weights_only=false"]
    assert lit_xai(*command) == 0


@pytest.mark.parametrize("model", ["Broken", "BrokenInit"])
def test_the_users_own_mistakes_keep_their_traceback(model, folder, lit_xai):
    with pytest.raises(ValueError, match="the user's own mistake") as error:
        lit_xai("fit", f"--model=own_module.{model}", "--data=own_module.Data", *_QUIET, "--trainer.max_epochs=1")
    assert "own_module.py" in {Path(entry.path).name for entry in error.traceback}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--trainer.accelerator=gpuu"], "You selected an invalid accelerator name"),
        (
            ["--model=Classifier", "--model.network=MLP", "--model.num_classes=1"],
            "num_classes expected an integer of at least 2",
        ),
        (["--model=Classifier", "--model.network=ResNet", "--model.network.depth=9"], "depth expected 6n + 2"),
        (["--config=attributions", "--config=method.yaml"], "IntegratedGradient"),
        (["--config=attributions", "--config=attributions"], "Two AttributionMonitors have the name"),
        (["--config=mnist"], "MNIST misses train-images-idx3-ubyte.gz"),
        ([TENSORBOARD, "--trainer.logger.save_dir=own_module.py"], "own_module.py"),
        (["--optimizer=SGD", "--optimizer.lr=-1"], "optimizer could not be built: Invalid learning rate"),
    ],
)
def test_what_cannot_be_set_up_is_one_sentence(options, sentence, folder, fit, capsys):
    (folder / "method.yaml").write_text(
        "trainer:\n  callbacks:\n  - class_path: AttributionMonitor\n    init_args: {method: IntegratedGradient}\n"
    )
    assert fit(*options) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-xai: error: ")]
    assert sentence in error


def test_the_whole_error_is_shown_in_debug_mode(fit, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEBUG", "true")
    with pytest.raises(ValueError, match="invalid accelerator name"):
        fit("--trainer.accelerator=gpuu")

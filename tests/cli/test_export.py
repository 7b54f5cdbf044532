"""``lit-xai export``: from a run's config and a checkpoint to the same files, and one sentence for each mistake."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from lit_xai import load_from_checkpoint
from lit_xai.cli import main
from lit_xai.cli.export import spelled_out

LOGS = ("--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=logs")
CONFIG = "--config=logs/lightning_logs/version_0/config.yaml"
QAT = (
    "--trainer.callbacks+=lit_xai.callbacks.QuantizationAwareTraining",
    "--trainer.callbacks.start_epoch=1",
    "--trainer.max_epochs=2",
)


def checkpoint():
    (found,) = Path().rglob("*.ckpt")
    return found


def export(*options):
    """Return the exit code."""
    try:
        return main(["export", CONFIG, *options])
    except SystemExit as end:
        return end.code


def names(folder="export"):
    return sorted(file.name for file in Path(folder).iterdir())


def outputs(file, x):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


X = np.arange(48, dtype=np.float32).reshape(16, 3)
X = np.sin(X)


def test_a_checkpoint_is_exported_and_the_table_printed_and_no_run_is_left_behind(fit, capsys, caplog):
    assert fit(*LOGS) == 0
    import own_module  # the fit made it known

    before = sorted(Path("logs").rglob("*"))
    capsys.readouterr()
    assert export("--ckpt", str(checkpoint())) == 0
    said = capsys.readouterr().out
    assert "fp32 (ONNX Runtime)" in said
    assert not [text for text in caplog.messages if " nothing: " in text]
    assert f"Weights: epoch 0, {checkpoint()}" in said
    assert {"model.onnx", "infer.py", "model.pt2"} <= set(names())
    assert "model.int8.onnx" not in names()
    with torch.no_grad():
        expected = load_from_checkpoint(own_module.Net, checkpoint())(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(outputs("export/model.onnx", X), expected, rtol=1e-4, atol=1e-6)
    assert sorted(Path("logs").rglob("*")) == before


def test_runtimes_are_compared(fit, capsys):
    assert fit(*LOGS) == 0
    capsys.readouterr()
    options = ["--ckpt", str(checkpoint()), "--program=false"]
    assert export(*options, "--runtimes=[onnxruntime,openvno]") == 2
    assert "runtimes[1] expected one of onnxruntime, openvino" in capsys.readouterr().err
    assert not Path("export").exists()
    assert export(*options, "--runtimes=[onnxruntime,openvino]", "--batch_sizes=[1,4]") == 0
    said = capsys.readouterr().out
    assert "| model.onnx | OpenVINO" in said
    assert "ms, batch 4" in said
    assert "On 1 thread, model.onnx in" in said


def test_int8_quantizes_without_training_into_the_given_folder(fit):
    assert fit(*LOGS) == 0
    assert export("--ckpt", str(checkpoint()), "--int8", "--calibrate", "12", "--dirpath", "files/here") == 0
    assert "model.int8.onnx" in names("files/here")
    assert not Path("export").exists()
    known = {row["name"] for row in json.loads(Path("files/here/report.json").read_text())["rows"]}
    assert known == {"fp32 (ONNX Runtime)", "post-training quantized (torch)", "int8 (ONNX Runtime)"}


@pytest.mark.parametrize("exports", [False, True])
def test_a_checkpoint_of_training_for_integers_gives_them_by_itself(exports, fit, capsys, caplog):
    own = ["--trainer.callbacks+=lit_xai.callbacks.ModelExport", "--trainer.callbacks.program=false"] if exports else []
    assert fit(*LOGS, *QAT, *own) == 0
    capsys.readouterr()
    assert export("--ckpt", str(checkpoint()), "--cpu=vnni") == 2
    error = capsys.readouterr().err
    assert error.startswith("lit-xai: error: --cpu expected 'any', which the network was trained for, but got 'vnni': ")
    assert not Path("export").exists()
    assert export("--ckpt", str(checkpoint()), "--int8", "--calibrate=8") == 0
    said = [text for text in caplog.messages if " nothing: " in text]
    # The kept weights are quantised for comparison: on as many samples as asked for.
    idle = "--int8 changes" if exports else "--int8 and --calibrate change"
    assert said == [f"{idle} nothing: the integers, for cpu 'any', are those that the network was trained in."]
    report = json.loads(Path("export/report.json").read_text())
    known = [row["name"] for row in report["rows"]]
    # Only a ModelExport kept the weights of before.
    assert ("post-training quantized (torch)" in known) is exports
    assert known[-1] == "int8 (ONNX Runtime)"
    epochs = {row["name"]: row["epoch"] for row in report["rows"]}
    assert epochs.pop("post-training quantized (torch)", 0) == 0  # of just before training for integers began
    assert {*epochs.values()} == {1}
    if exports:
        inside = Path("logs/lightning_logs/version_0/export")
        for name in ("model.onnx", "model.int8.onnx"):
            np.testing.assert_array_equal(outputs(Path("export") / name, X), outputs(inside / name, X))


def test_nothing_is_overwritten_without_the_option(fit, capsys):
    assert fit(*LOGS) == 0
    assert export("--ckpt", str(checkpoint())) == 0
    capsys.readouterr()
    assert export("--ckpt", str(checkpoint())) == 2
    error = capsys.readouterr().err
    assert error.startswith("lit-xai: error: --dirpath expected a folder without an earlier export, but export holds ")
    assert error.endswith("or give --overwrite.\n")
    assert export("--ckpt", str(checkpoint()), "--overwrite") == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--ckpt=CKPT", "--calibrate=0"], "calibrate expected a positive integer, but got 0."),
        (["--ckpt=CKPT", "--calibrate=few"], "calibrate: expected int or null, but got 'few'."),
        (["--ckpt=CKPT", "--threads=0"], "threads expected a positive integer, but got 0."),
        (
            ["--ckpt=CKPT", "--cpu=vnni"],
            "--cpu expected --int8 as well, since nothing is quantized otherwise, but got 'vnni'",
        ),
        (["--ckpt=CKPT", "--cpu=arm"], "cpu expected one of any, vnni, arm64, but got 'arm'. Did you mean 'arm64'?"),
        (["--ckpt=CKPT", "--overwrit"], "there is no option '--overwrit'. Did you mean '--overwrite'"),
        (["--ckpt=CKPT", "--dirpath=own_module.py"], "--dirpath expected a folder, but got the file own_module.py."),
        (["--ckpt=own_module.py"], "'own_module.py' is damaged, or no checkpoint of a Lightning Trainer."),
        (["--ckpt=no.ckpt"], "there is no file 'no.ckpt'."),
        ([], "export needs --ckpt FILE, the checkpoint whose weights are written."),
    ],
)
def test_each_mistake_is_one_sentence_and_2(options, sentence, fit, capsys):
    assert fit(*LOGS) == 0
    capsys.readouterr()
    assert export(*(option.replace("CKPT", str(checkpoint())) for option in options)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lit-xai: error: {sentence}")
    assert error.count("\n") == 1
    assert not Path("export").exists()


def test_a_network_that_cannot_be_exported_is_one_sentence_and_1(fit, folder, capsys):
    with (folder / "own_module.py").open("a") as file:
        file.write("\n\nclass Branches(Net):\n    def forward(self, x):\n")
        file.write("        return self.layers(x if float(x.sum()) > 0 else -x)\n")
    assert fit(*LOGS, "--model=own_module.Branches") == 0
    capsys.readouterr()
    assert export("--ckpt", str(checkpoint())) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("lit-xai: error: Branches cannot be exported")
    assert not Path("export").exists()


NO_FORWARD = """

class NoForward(LightningModule):
    def __init__(self):
        super().__init__()
        self.network, self.other = nn.Linear(3, 2), nn.Linear(3, 2)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


def test_the_part_its_metric_and_the_rest_are_options(fit, folder, capsys, caplog):
    with (folder / "own_module.py").open("a") as file:
        file.write(NO_FORWARD)
    assert fit(*LOGS, "--model=own_module.NoForward") == 0
    capsys.readouterr()
    assert export("--ckpt", str(checkpoint()), "--dirpath=found") == 0  # the part that its steps call
    capsys.readouterr()
    metric = ("--metric=torchmetrics.classification.MulticlassF1Score", "--metric.num_classes=2")
    options = ("--module=network", "--batch_to_inputs=0", "--threads=2", "--program=false", "--calibrate=8")
    assert export("--ckpt", str(checkpoint()), *metric, *options) == 0
    said = capsys.readouterr().out
    assert "--calibrate changes nothing: without --int8 nothing is quantized." in caplog.messages
    assert "MulticlassF1Score" in said
    assert "2 threads" in said
    assert "model.pt2" not in names()
    weights = torch.load(checkpoint(), weights_only=False)["state_dict"]
    expected = X @ weights["network.weight"].numpy().T + weights["network.bias"].numpy()
    np.testing.assert_allclose(outputs("export/model.onnx", X), expected, rtol=1e-4, atol=1e-6)


def test_options_are_spelled_as_those_of_the_other_commands():
    assert spelled_out(["export", "--ckpt=a", "--int8", "--overwrite", "true"]) == [
        *("export", "--ckpt_path=a", "--int8=true", "--overwrite", "true")
    ]


def test_its_help_is_short(capsys):
    assert main(["export", "--help"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) <= 24
    assert max(map(len, said.splitlines())) <= 115
    for option in ("--ckpt", "--dirpath", "--int8", "--calibrate", "--cpu", "--module", "--metric", "--overwrite"):
        assert option in said
    assert main(["--help"]) == 0
    assert "lit-xai export" in capsys.readouterr().out

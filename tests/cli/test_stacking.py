"""The overlays stacked on one config, every pair in both orders and all of them: the order changes nothing."""

import itertools
import json
import random
import re
from pathlib import Path

import pytest
import torch
import yaml

from lit_xai.cli.configs import find_config
from lit_xai.structure.recipe import KEY

OVERLAYS = ("pruning", "distillation", "quantization", "export", "attributions")
PAIRS = list(itertools.permutations(OVERLAYS, 2))
QUICK = [("quantization", "pruning"), ("export", "distillation"), ("attributions", "quantization")]
"""These run in the suite, as does a run with all of them in docs/start.md; the others are marked slow."""
QUICKLY = (
    "--trainer.max_epochs=4",
    "--trainer.limit_train_batches=4",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--data.batch_size=32",
    "--model.network.init_args.width=8",
)
LOGGED = {
    "pruning": r"StructuredPruning, epoch [0-2]: .* MACs",
    "distillation": r"KnowledgeDistillation, teacher (dense|ema)",
    "quantization": r"QuantizationAwareTraining, epoch 3: quantization begins",
    "export": r"ModelExport, in 'logs",
    "attributions": r"IntegratedGradients: figures and attributions are in",
}
ALL = [tuple(random.Random(seed).sample(OVERLAYS, len(OVERLAYS))) for seed in range(3)]


def cells(orders):
    return [
        pytest.param(names, marks=[] if names in QUICK else pytest.mark.slow, id="-".join(names)) for names in orders
    ]


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*slower than",  # networks this small do not gain
    "ignore:.*ModelExport",
    "ignore:.*does not add up",  # in two steps
)


def overlay(name: str, folder: Path) -> str:
    """Return a file with the overlay, changed as its comments suggest, and made quick."""
    config = yaml.safe_load(Path(find_config(name)).read_text())
    (callback,) = config["trainer"]["callbacks+"]
    if name == "distillation":
        callback["init_args"]["teacher"] = "dense"
    elif name == "pruning":
        callback["init_args"]["report_latency"] = False
    elif name == "export":
        callback["init_args"].update(calibrate=32, program=False)
    elif name == "attributions":
        callback["init_args"].update(probe=2, attribute_args={"n_steps": 2})
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def check(names: tuple[str, ...], log: str, more: int = 0) -> None:
    run = Path("logs/version_0")
    recipe = torch.load(run / "checkpoints/last.ckpt", weights_only=True).get(KEY, {"steps": []})
    kinds = {"prune"} if "pruning" in names else set()
    kinds |= {"quantize"} if "quantization" in names else set()
    assert {step["kind"] for step in recipe["steps"]} == kinds
    assert (run / "export/model.onnx").exists() is ("export" in names)
    assert (run / "export/model.int8.onnx").exists() is ({"export", "quantization"} <= set(names))
    assert len(list(run.glob("attribution/**/figure.png"))) == (4 if "attributions" in names else 0)
    # The log tells what ran at which epoch.
    assert {name for name, line in LOGGED.items() if re.search(line, log)} == set(names)
    saved = (run / "config.yaml").read_text()
    assert saved.count("class_path: lit_xai.callbacks.") == len(names) + more


def fit(configs: list[str], lit_xai, caplog, *options: str) -> str:
    """Return what was logged."""
    caplog.set_level("INFO", "lightning.pytorch")
    given = [f"--config={config}" for config in ("base", "digits", *configs)]
    assert lit_xai("fit", *given, *QUICKLY, *options) == 0
    return caplog.text


def stacked(names: tuple[str, ...], lit_xai, caplog) -> str:
    # Without pruning or quantization there is no dense model.
    alone = not {"pruning", "quantization"} & set(names)
    configs = [name if alone and name == "distillation" else overlay(name, Path.cwd()) for name in names]
    return fit(configs, lit_xai, caplog)


@pytest.mark.parametrize("names", cells(PAIRS))
def test_a_pair(names, lit_xai, caplog):
    check(names, stacked(names, lit_xai, caplog))


@pytest.mark.parametrize("names", cells(ALL))
def test_all_of_them(names, lit_xai, caplog):
    check(names, stacked(names, lit_xai, caplog))


@pytest.mark.slow  # measures latencies
def test_compress_is_all_of_them(lit_xai, caplog):
    # Trained for longer than the others: the predictions of a network that has learned nothing are ties, and integers
    # then decide more than 1% of them otherwise, which the export refuses.
    log = fit(["compress"], lit_xai, caplog, "--trainer.limit_train_batches=40")
    check(OVERLAYS, log, more=1)
    assert "ModelReport: Verdict: " in log
    assert json.loads(Path("logs/version_0/facts.json").read_text())["facts"]["stated"] == "before"

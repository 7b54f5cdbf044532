import importlib
import inspect
import pkgutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback

import lit_xai

PROJECT = """
import sys
from types import SimpleNamespace
import {package} as pl
from {package}.cli import LightningCLI
from {package}.demos.boring_classes import BoringModel, BoringDataModule

class Model(BoringModel):
    pass

options = ["fit", "--trainer.callbacks+=lit_xai.callbacks.AttributionMonitor", "--trainer.callbacks.target=1"]
options += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
options += ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
cli = LightningCLI(Model, BoringDataModule, args=options)
monitors = [callback for callback in cli.trainer.callbacks if type(callback).__name__ == "AttributionMonitor"]
assert len(monitors) == 1 and isinstance(monitors[0], pl.Callback), monitors
"""


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_projects_own_command_line_takes_our_callbacks(package, tmp_path):
    (tmp_path / "project.py").write_text(PROJECT.format(package=package))
    done = subprocess.run([sys.executable, "project.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(tmp_path.rglob("attribution/**/figure.png"))) == 1


class Listed(list):
    """Stands for OmegaConf's ListConfig, which is no list."""

    __module__ = "omegaconf.listconfig"


def test_values_of_a_hydra_configuration_are_plain(monkeypatch):
    from lit_xai.trainer.base import AnyCallback

    class Takes(AnyCallback):
        def __init__(self, first, *, second=None):
            self.values = first, second

    with monkeypatch.context() as patch:
        stand_in = SimpleNamespace(to_container=lambda value, resolve: (list(value), resolve))
        patch.setitem(sys.modules, "omegaconf", SimpleNamespace(OmegaConf=stand_in))
        assert Takes(Listed([1]), second=Listed()).values == (([1], True), ([], True))
    given = [1], {"a": 2}
    assert all(kept is one for kept, one in zip(Takes(given[0], second=given[1]).values, given, strict=True))
    assert list(inspect.signature(Takes).parameters) == ["first", "second"]


CONFIGS = [
    {"_target_": "lit_xai.AttributionMonitor", "probe": [0, 1], "class_names": ["a"], "attribute_args": {"n_steps": 4}},
    {"_target_": "lit_xai.StructuredPruning", "pruning_ratio": 0.5, "ignored_layers": ["head"]},
    {"_target_": "lit_xai.QuantizationAwareTraining", "bits": {"net.0": 4}, "ignored_layers": ["head"]},
    {"_target_": "lit_xai.KnowledgeDistillation", "teacher": "ema", "alpha": [0.9, 0.1], "features": ["net.0"]},
    {"_target_": "lit_xai.ModelExport", "classes": ["a"], "mean": [0.1], "std": [0.2]},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["_target_"])
def test_hydra_builds_them(config):
    hydra, omegaconf = pytest.importorskip("hydra"), pytest.importorskip("omegaconf")
    built = hydra.utils.instantiate(omegaconf.OmegaConf.create({"callbacks": [config]})).callbacks[0]
    assert type(built).__name__ == config["_target_"].rpartition(".")[2]


ALONE = {("FollowRecipe", "on_save_checkpoint")}
"""Hooks that leave out what their base does on purpose: it attaches, and has no state of its own."""


def descendants(one):
    for child in one.__subclasses__():
        yield child
        yield from descendants(child)


def test_hooks_go_on_to_the_hooks_of_their_bases():
    for found in pkgutil.walk_packages(lit_xai.__path__, "lit_xai."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    hooks = [name for name in dir(Callback) if not name.startswith("_")]
    forgotten, seen = set(), 0
    for one in {one for one in descendants(Callback) if one.__module__.startswith("lit_xai")}:
        for name in set(hooks) & set(vars(one)):
            bases = [base for base in one.__mro__[1:] if name in vars(base) and base.__module__.startswith("lit_xai")]
            seen += bool(bases)
            if bases and f"super().{name}(" not in inspect.getsource(vars(one)[name]):
                forgotten.add((one.__name__, name))
    assert seen > 15
    assert forgotten == ALONE

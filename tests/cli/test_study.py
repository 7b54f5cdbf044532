"""``lit-xai study``: cells of a grid in processes of their own, shared by workers, continued after one is killed."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from lit_xai.cli import main
from lit_xai.report.front import pareto_front

CONFIG = {
    "model": {"class_path": "own_module.Net"},
    "data": {"class_path": "own_module.Data", "init_args": {"n": 64}},
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "log_every_n_steps": 1},
}
STUDY = {"configs": ["own"], "search": {"model.lr": [0.1, 0.01]}, "objectives": {"val/loss": "min"}}

# What was trained is written down by the module itself, whatever the study believes.
TOLD = """

import time


class Told(Net):
    def __init__(self, width: int = 4, lr: float = 0.1, pause: float = 0.0):
        super().__init__(width, lr)
        self.pause = pause

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val/width", float(self.width))

    def on_train_epoch_end(self):
        time.sleep(self.pause)
        with open("trained.txt", "a") as file:
            file.write(f"{self.lr} {self.width} {self.current_epoch}\\n")
"""


@pytest.fixture
def written(folder):
    """Write the settings of a study, and the configuration it names; returns the path."""

    def write(**changes):
        Path("own.yaml").write_text(yaml.safe_dump(CONFIG))
        Path("study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}))
        return "study.yaml"

    return write


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sampel": "tpe"}, "a study has no entry 'sampel'. Did you mean 'sampler'?"),
        ({"search": {"model.lrr": [0.1]}}, "the option 'model.lrr', which there is not. Did you mean 'lr'?"),
        ({"search": {"model.width": ["wide"]}}, "expected int, but got 'wide'"),
        ({"search": {"model.lr": {"low": 1, "hihg": 2}}}, "has no entry 'hihg'. Did you mean 'high'?"),
        ({"search": {"model.lr": {"low": 0.1, "high": 0.2}}}, "or a step, for a grid"),
        ({"search": {"configs": ["own"]}}, "search['configs'] expected lists of names"),
        ({"objectives": {"accuracy": "max"}}, "accuracy needs a reference"),
        ({"objectives": {"accuracy": "higher"}}, "expected 'min' or 'max', but got 'higher'"),
        ({"configs": ["onw"]}, "there is no config 'onw'"),
        ({"reference": "dense.ckpt"}, "there is no file 'dense.ckpt'"),
        ({"options": {"trainer.max_epoch": 3}}, "options names the option 'trainer.max_epoch'"),
        ({"sampler": "tpe"}, "needs n_trials"),
        ({"n_trials": 7}, "n_trials expected none for a grid, which has 2 cells"),
    ],
)
def test_mistakes_are_one_sentence(written, capsys, changes, sentence):
    assert main(["study", written(**changes)]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(Path().rglob("*.db")), "nothing is begun"


def test_a_command_line_that_is_none(written, capsys):
    assert main(["study", "nowhere.yaml"]) == 1
    assert main(["study"]) == 2
    assert main(["study", "--help"]) == 0
    assert "nowhere.yaml" in capsys.readouterr().err


def start(path="study.yaml", **options):
    command = [sys.executable, "-c", "import sys; from lit_xai.cli import main; sys.exit(main(sys.argv[1:]))"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([*command, "study", path], env=environment, text=True, **options)


def trained():
    lines = Path("trained.txt").read_text().split("\n")[:-1] if Path("trained.txt").exists() else []
    return [(float(lr), int(width), int(epoch)) for lr, width, epoch in map(str.split, lines)]


def finished(folder="study"):
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/study.db")
    study = optuna.load_study(study_name=folder, storage=storage)
    trials = study.get_trials()
    best = {trial.number for trial in study.best_trials}
    storage.remove_session()
    storage.engine.dispose()
    return trials, best


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_workers_lose_no_cell_and_repeat_none_when_one_is_killed(written, folder):
    with (folder / "own_module.py").open("a") as file:
        file.write(TOLD)
    own = {**CONFIG, "model": {"class_path": "own_module.Told", "init_args": {"pause": 2.0}}}
    search = {"model.lr": [0.1, 0.01], "model.width": [3, 5]}
    options = {"trainer.max_epochs": 4}
    written(search=search, objectives={"val/loss": "min", "val/width": "min"}, options=options, grace=16)
    Path("own.yaml").write_text(yaml.safe_dump(own))
    workers = [start(stdout=subprocess.PIPE), start(stdout=subprocess.PIPE)]
    # The first is killed in the middle of a cell, once two of its epochs are over.
    told, killed = [], None
    for line in workers[0].stdout:
        told.append(line)
        if line.startswith("trial-"):
            killed = line.split()[0].rstrip(":")
            break
    epochs = Path("study", killed, "epochs.jsonl")
    while not epochs.exists() or len(epochs.read_text().splitlines()) < 2:
        assert workers[0].poll() is None
        time.sleep(0.1)
    os.kill(workers[0].pid, signal.SIGKILL)
    workers[0].wait()
    workers[0].stdout.close()
    left = len(epochs.read_text().splitlines())
    rest, _ = workers[1].communicate(timeout=1200)
    assert workers[1].returncode == 0, rest
    assert f"{killed}: continued after epoch" in rest
    trials, best = finished()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    # No cell is lost, and none is there twice.
    cells = sorted((trial.params["model.lr"], trial.params["model.width"]) for trial in complete)
    assert cells == sorted(product(*search.values()))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.FAIL) for trial in trials)
    # Every epoch was trained once, but for the one in which the worker was killed.
    counts = collections.Counter(trained())
    assert set(counts) == {(lr, width, epoch) for lr, width in cells for epoch in range(4)}
    assert counts.total() <= 16 + 1
    assert 2 <= left <= 4
    # The front is that of all cells, and Optuna's.
    numbers = json.loads(Path("study/study.json").read_text())
    rows = [one for one in numbers["cells"] if one["state"] == "complete"]
    front = pareto_front([trial.values for trial in complete], ["minimize", "minimize"])
    brute = {trial.number for trial, is_on in zip(complete, front, strict=True) if is_on}
    assert {one["number"] for one in rows if one["is_on_front"]} == best == brute
    # Nothing is left: the same command only writes the report again, and the same.
    page = Path("study/study.html").read_bytes()
    assert start().wait(timeout=300) == 0
    assert Path("study/study.html").read_bytes() == page
    assert collections.Counter(trained()) == counts


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cells_are_held_against_a_reference_that_is_trained_first(written, capsys):
    compare = {"n": 60, "explainers": ["IntegratedGradients"], "nulls": 2}
    own = {"reference": ["own"], "compare": compare, "options": {"init_from": "reference"}}
    written(objectives={"accuracy": "max", "similarity": "max", "latency": "min"}, **own)
    assert main(["study", "study.yaml"]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 cells are measured" in said
    assert "the test samples were read" in said
    numbers = json.loads(Path("study/study.json").read_text())
    assert {one["folder"] for one in numbers["cells"]} == {"trial-0000", "trial-0001"}
    for one in numbers["cells"]:
        assert one["values"]["accuracy"]["low"] < one["values"]["accuracy"]["value"]
        assert Path("study", one["folder"], "comparison", "report.html").exists()
    # Another study is not mixed into it, and a metric that is never logged is found before the first cell.
    written(objectives={"accuracy": "max"}, **own)
    assert main(["study", "study.yaml"]) == 1
    assert "is that of another study, which differs in objectives" in capsys.readouterr().err
    written(objectives={"val/los": "max"}, dirpath="other")
    assert main(["study", "study.yaml"]) == 1
    assert "Did you mean 'val/loss'?" in capsys.readouterr().err
    assert not Path("other").exists()

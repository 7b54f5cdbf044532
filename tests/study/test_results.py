"""The front and what else is known of a study, held against Optuna and brute force."""

import csv
import io
import itertools
import random
import re

import optuna
import pytest

from lit_xai.study.page import page
from lit_xai.study.reporting import table, write_report
from lit_xai.study.results import results
from lit_xai.study.settings import read_settings
from lit_xai.study.storage import SharedStudy

SEARCH = {"model.width": [4, 8, 16], "configs": [[], ["pruning", "quantization"]], "trainer.max_epochs": [1, 2]}


def number(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 100}


@pytest.fixture
def shared(tmp_path):
    """A study of twelve cells with three objectives, one of which failed."""
    objectives = {"accuracy": "max", "latency": "min", "retention": "max"}
    plain = {"configs": ["base"], "search": SEARCH, "objectives": objectives, "reference": "dense.ckpt"}
    found = SharedStudy(read_settings({**plain, "dirpath": str(tmp_path / "study")}))
    draw = random.Random(3)
    while (one := found.take()) is not None:
        trial, values = one
        if trial.number == 5:
            found.fail(trial, "fit failed: <out of memory>")
            continue
        width = values["model.width"]
        three = [0.8 + 0.005 * width + draw.choice([0, 0.1]), width / 16, draw.choice([0.3, 0.6])]
        measured = dict(zip(objectives, map(number, three), strict=True)) | {"macs": number(1000.0 * width)}
        found.complete(trial, three, {"measured": measured, "seconds": 7.0, "folder": f"trial-{trial.number:04d}"})
    yield found
    found.close()


def test_the_front_is_that_of_optuna_and_of_brute_force(shared):
    found = results(shared)
    front = {one["number"] for one in found["cells"] if one["is_on_front"]}
    assert front == {trial.number for trial in shared.study.best_trials}
    signs = (-1, 1, -1)
    costs = {one.number: [s * v for s, v in zip(signs, one.values, strict=True)] for one in shared.trials("COMPLETE")}
    beaten = {
        one
        for (one, a), (_, b) in itertools.permutations(costs.items(), 2)
        if all(y <= x for x, y in zip(a, b, strict=True)) and b != a
    }
    assert front == set(costs) - beaten
    assert 0 < len(front) < 11


def test_what_is_known_of_cells(shared):
    found = results(shared)
    assert (found["n_cells"], len(found["cells"])) == (12, 12)
    assert found["cells"][2]["options"] == {
        "model.width": "4",
        "configs": "pruning + quantization",
        "trainer.max_epochs": "1",
    }
    assert (found["cells"][5]["state"], found["cells"][5]["reason"]) == ("failed", "fit failed: <out of memory>")
    # Only the width has anything to do with the latency.
    shares = found["importances"]["latency"]
    assert shares["model.width"] > 0.9
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    again = optuna.importance.get_param_importances(
        shared.study, evaluator=evaluator, target=lambda trial: trial.values[1]
    )
    assert shares == pytest.approx(again, rel=1e-5)


def test_page_table_and_numbers_are_the_same_for_the_same_cells(shared, tmp_path):
    first, second = results(shared), results(shared)
    assert page(first) == page(second)
    path = write_report(first, tmp_path)
    text = path.read_text()
    assert "&lt;out of memory&gt;" in text
    assert "<out of memory>" not in text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)
    rows = list(csv.DictReader(io.StringIO(table(first))))
    front = [int(one["cell"]) for one in rows if one["front"] == "1"]
    assert front == [one["number"] for one in first["cells"] if one["is_on_front"]]
    assert float(rows[0]["accuracy low"]) < float(rows[0]["accuracy"])
    assert sorted(one.name for one in tmp_path.glob("study.*")) == ["study.csv", "study.html", "study.json"]


def test_a_study_without_a_cell_has_a_page(tmp_path):
    plain = {"configs": ["base"], "search": {"a": [1]}, "objectives": {"val/loss": "min"}, "dirpath": str(tmp_path)}
    shared = SharedStudy(read_settings(plain))
    assert "No cell has been measured yet." in page(results(shared))
    shared.close()

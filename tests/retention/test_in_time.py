"""What is measured once keeps within its share of the run, whatever an explainer costs, or says so in one sentence.

The clock is one of the tests' own: a batch takes ten seconds, and explanations what the test says.
"""

import csv
import json
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from retention_runs import FAST, Module, data, run
from torch.utils.data import DataLoader

from lit_xai import RetentionMonitor
from lit_xai.retention import reference

SETTINGS = FAST | {"n": 100, "nulls": 10, "cache": False, "time_budget": 0.2, "second_explainer": "Occlusion"}
BATCH = 10.0


class Slow:
    """A clock that goes on with the batches and explanations of a run.

    Args:
        costs: seconds of each explanation and of each of its samples, by the method's name.
    """

    def __init__(self, monkeypatch, **costs):
        self.now, self.costs, self.seen = 0.0, costs, []
        clock = SimpleNamespace(monotonic=lambda: self.now)
        for module in ("trainer.budget", "retention.comparison", "retention.conclusion"):
            monkeypatch.setattr(f"lit_xai.{module}.time", clock)
        original = reference.explain_fully

        def explain(network, inputs, explainer, *args, **given):
            found, each = self.costs.get(explainer.name, (0.0, 0.0)), len(inputs)
            self.now += found[0] + found[1] * each
            self.seen.append((explainer.name, each))
            return original(network, inputs, explainer, *args, **given)

        monkeypatch.setattr(reference, "explain_fully", explain)

    def module(self):
        slow = self

        class Timed(Module):
            def training_step(self, batch, batch_idx):
                slow.now += BATCH
                return super().training_step(batch, batch_idx)

        return Timed()

    def run(self, folder, monitor, *callbacks, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            options = {"val": DataLoader(data(200, 1), 50)} | options
            run(folder, monitor, *callbacks, module=self.module(), **options)
        said = [str(one.message) for one in caught if str(one.message).startswith("RetentionMonitor: ")]
        return json.loads((folder / "retention" / "retention.json").read_text()), said

    def whole(self, name):
        """Sizes of all that was explained, without the pieces that were explained to learn what all would take."""
        return [n for method, n in self.seen if method == name and n not in (2, 8, 32)]


FREE = (0.0, 0.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (FREE, (0.0, 0.01)),
        (FREE, (1.0, 0.0)),
        (FREE, (3.0, 0.01)),
        ((0.0, 0.01), (0.0, 0.1)),
        ((0.2, 0.05), FREE),
        ((0.2, 0.05), (0.0, 0.1)),
        ((0.0, 0.01), (5.0, 5.0)),
    ],
)
def test_the_share_is_kept_whatever_it_costs(first, second, tmp_path, monkeypatch):
    slow = Slow(monkeypatch, IntegratedGradients=first, Occlusion=second)
    found, said = slow.run(tmp_path, RetentionMonitor(on_error="raise", **SETTINGS))
    assert found["time"]["once"] < 0.27
    assert "IntegratedGradients" in found["explainers"]
    for name in ("IntegratedGradients", "Occlusion"):
        assert len(set(slow.whole(name))) <= 1  # the same samples of all networks
        about = [one for one in said if one.startswith(f"RetentionMonitor: {name} ")]
        of = found["explainers"].get(name)
        assert about or (of is not None and of["null"]["n"] == 10 and "8 bits" in of["references"])
        assert of is None or of["null"]["n"] >= 5


def test_what_is_left_out_is_told_with_its_cost(tmp_path, monkeypatch):
    slow = Slow(monkeypatch, Occlusion=(0.0, 2.0))
    found, said = slow.run(tmp_path, RetentionMonitor(on_error="raise", **SETTINGS))
    assert list(found["explainers"]) == ["IntegratedGradients"]
    assert slow.whole("Occlusion") == []
    assert len(said) == 1
    assert "Occlusion is left out; on 100 samples it would take about 1400 s where time_budget leaves 32 s" in said[0]
    needed = float(re.search(r"time_budget=([\d.]+) lets all of it run", said[0])[1])
    slow = Slow(monkeypatch, Occlusion=(0.0, 2.0))
    found, said = slow.run(tmp_path / "all", RetentionMonitor(on_error="raise", **(SETTINGS | {"time_budget": needed})))
    assert found["explainers"]["Occlusion"]["n"] == 100
    assert found["explainers"]["Occlusion"]["null"]["n"] >= 5


def test_fewer_samples_of_the_second_explainer(tmp_path, monkeypatch):
    slow = Slow(monkeypatch, Occlusion=(0.0, 0.1))
    found, said = slow.run(tmp_path, RetentionMonitor(on_error="raise", **SETTINGS))
    occlusion = found["explainers"]["Occlusion"]
    assert 30 <= occlusion["n"] < 50
    assert occlusion["null"]["n"] >= 5
    assert occlusion["similarity_interval"] is not None
    assert found["explainers"]["IntegratedGradients"]["n"] == 100
    assert any(f"Occlusion explains {occlusion['n']} of 100 samples" in one for one in said)
    with (tmp_path / "retention" / "samples.csv").open() as file:
        similar = np.array([float(row["similarity Occlusion"]) for row in csv.DictReader(file)])
    assert len(similar) == 100
    assert np.isfinite(similar).sum() == occlusion["n"]
    assert np.nanmean(similar) == pytest.approx(occlusion["similarity"])
    with np.load(tmp_path / "retention" / "samples.npz") as arrays:
        assert (np.isfinite(arrays["maps Occlusion"]).all(1) == np.isfinite(similar)).all()


def test_fewer_samples_of_the_first_one_at_every_evaluation(tmp_path, monkeypatch):
    """Also after a break, in a process that would have explained more."""
    settings = SETTINGS | {"second_explainer": None}

    def saved(folder):
        return ModelCheckpoint(folder / "saved", filename="{epoch}", save_top_k=-1)

    slow = Slow(monkeypatch, IntegratedGradients=(0.0, 0.1))
    whole, said = slow.run(tmp_path / "whole", RetentionMonitor(on_error="raise", **settings), saved(tmp_path))
    (n,) = set(slow.whole("IntegratedGradients"))
    assert 30 <= n < 50
    assert any(f"IntegratedGradients explains {n} of 100 samples" in one for one in said)
    assert whole["explainers"]["IntegratedGradients"]["n"] == n
    assert whole["time"]["once"] < 0.27
    checkpoint = next((tmp_path / "saved").glob("epoch=1*.ckpt"))
    assert torch.load(checkpoint)["callbacks"]["RetentionMonitor"]["n"] == n
    slow = Slow(monkeypatch)
    second, said = slow.run(
        tmp_path / "second", RetentionMonitor(on_error="raise", **settings), saved(tmp_path / "b"), ckpt_path=checkpoint
    )
    assert second["history"] == whole["history"]
    assert set(slow.whole("IntegratedGradients")) == {n}
    assert said == []


def test_a_first_explainer_that_nothing_allows(tmp_path, monkeypatch):
    """It is asked for: the run says what it takes, and holds it against nothing."""
    slow = Slow(monkeypatch, IntegratedGradients=(0.0, 9.0))
    settings = SETTINGS | {"second_explainer": None, "time_share": 0.0}
    found, said = slow.run(tmp_path, RetentionMonitor(on_error="raise", **settings))
    integrated = found["explainers"]["IntegratedGradients"]
    assert integrated["n"] == 30
    assert integrated["null"] is None
    assert "held against no untrained network" in integrated["paragraph"]
    assert any("explains 30 of 100 samples, which is more than the time allows" in one for one in said)
    assert any("is held against no untrained networks" in one for one in said)
    assert len(slow.whole("IntegratedGradients")) == 3  # the reference, the first and the last evaluation

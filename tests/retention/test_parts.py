"""Classes and groups that are told apart, by hand from the rows of a run."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retention_runs import FAST, Module, data, run
from torch.utils.data import DataLoader, TensorDataset

from lit_xai import RetentionMonitor
from lit_xai.retention.parts import FEWEST_OF_PART, class_number, with_parts


def grouped(n=400):
    x, y = data(n, 1).tensors
    few = (torch.arange(n) % 20 == 0).long()
    return DataLoader(TensorDataset(x, y, few + 2 * (torch.arange(n) % 2)), 50)


class Sites(Module):
    class_names = ("good", "fair", "bad")

    def validation_step(self, batch, batch_idx):
        return super().validation_step(batch[:2], batch_idx)


def test_parts_are_told_apart(tmp_path):
    monitor = RetentionMonitor(adverse_class=2, groups={"site": 2}, on_error="raise", **FAST)
    run(tmp_path, monitor, module=Sites(), val=grouped(), epochs=2)
    found = json.loads((tmp_path / "retention" / "retention.json").read_text())["explainers"]["IntegratedGradients"]
    with (tmp_path / "retention" / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    similarity = np.array([float(row["similarity IntegratedGradients"]) for row in rows])
    of_all = np.array([row["of a part alone"] == "False" for row in rows])
    assert found["n"] == 40 == of_all.sum()
    assert found["similarity"] == pytest.approx(similarity[of_all].mean(), abs=1e-9)
    masks = {"class 2": [row["reference"] == "2" for row in rows]}
    masks |= {f"site={k}": [row["site"] == str(k) for row in rows] for k in (0, 2)}
    assert {"site=0", "site=2"} <= set(found["parts"]) <= set(masks)
    for name, part in found["parts"].items():
        assert part["n"] == sum(masks[name]) >= FEWEST_OF_PART
        assert part["similarity"] == pytest.approx(similarity[masks[name]].mean(), abs=1e-9)
        assert part["similarity_interval"] is not None
        assert f"{name}: " in found["paragraph"]
    assert monitor.result["IntegratedGradients"].parts["site=0"].null.n == 3


@pytest.mark.parametrize("given", ["bad", 3])
def test_a_class_that_there_is_not_is_refused_before_the_first_step(given, tmp_path):
    with pytest.raises(ValueError, match=r"adverse_class expected .*but got ('bad'|3)"):
        run(tmp_path, RetentionMonitor(adverse_class=given, **FAST))


def test_names_of_classes():
    names = ["benign", "malignant"]
    assert class_number("malignant", names, 2) == 1
    with pytest.raises(ValueError, match=r"adverse_class expected the name of a class, but got 'malignent'.*malignant"):
        class_number("malignent", names, 2)
    with pytest.raises(ValueError, match="no scores of classes"):
        class_number(1, None, None)
    with pytest.raises(ValueError, match="adverse_class expected"):
        RetentionMonitor(adverse_class=-1)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_each_part_has_enough_and_none_twice(draw):
    n = draw.draw(st.integers(50, 500))
    places = sorted(draw.draw(st.sets(st.integers(0, n - 1), max_size=60)))
    generator = torch.Generator().manual_seed(draw.draw(st.integers(0, 99)))
    parts = {str(k): torch.rand(n, generator=generator) < share for k, share in enumerate((0.05, 0.3, 0.9))}
    found, rows = with_parts(places, parts)
    assert found[: len(places)] == places
    assert len(set(found)) == len(found)
    for name, mask in parts.items():
        assert (name in rows) == (int(mask.sum()) >= FEWEST_OF_PART)
        if name in rows:
            assert len(rows[name]) >= FEWEST_OF_PART
            assert {found[row] for row in rows[name]} == {place for place in found if mask[place]}

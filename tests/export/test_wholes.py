"""Graphs are exported for one of any size where the file computes the same, else for exactly one size."""

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import GraphModule, GraphNetwork, collate, graph, graphs
from lightning.pytorch import Trainer
from torch import nn

from lit_xai import ModelExport, QuantizationAwareTraining
from lit_xai.export import export_model
from lit_xai.export.files import write_onnx
from lit_xai.export.parity import OnnxPredictor
from lit_xai.export.wholes import Fitting, one_by_one, read_examples

SIZES = [4, 5, 6, 7, 8, 9, 4, 5]


def inputs(nodes: int, seed: int = 0):
    batch = collate([graph(nodes, seed)])
    return {name: batch[name] for name in ("x", "edges", "graph")}


def fit(folder, loader, *callbacks):
    export = ModelExport(folder)
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[*callbacks, export], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = GraphModule()
    trainer.fit(module, loader, loader)
    return export.report, module.net.eval()


def check(folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(folder / "infer.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_run_of_graphs(tmp_path):
    report, net = fit(tmp_path, graphs(SIZES))
    assert any("x[*, 5], edges[2, *], graph[*], of any size" in warning for warning in report.warnings)
    assert report.samples == len(SIZES)
    assert [*report.rows[0].latency] == [1]
    assert check(tmp_path).splitlines()[-1].startswith("ok")
    # A size that nobody has seen, by the file alone.
    new = inputs(31, seed=99)
    with torch.no_grad():
        torch.testing.assert_close(OnnxPredictor(tmp_path / "model.onnx")(new), net(**new), rtol=1e-4, atol=1e-5)
    np.savez(tmp_path / "new.npz", **{name: tensor.numpy() for name, tensor in new.items()})
    assert check(tmp_path, str(tmp_path / "new.npz")).count("\n") == 1


@pytest.mark.slow  # two runs with the export of two files each
@pytest.mark.parametrize("sizes", [SIZES, [6] * 8])
def test_integers_of_graphs(sizes, tmp_path):
    is_said = contextlib.nullcontext() if sizes == SIZES else pytest.warns(match="exactly these shapes: x.6, 5., edges")
    with is_said:
        report, _ = fit(tmp_path, graphs(sizes), QuantizationAwareTraining(start_epoch=1))
    assert any(operator.integer for operator in report.integer_operators)
    assert (tmp_path / "model.int8.onnx").exists()
    assert report.samples == 8
    assert check(tmp_path).splitlines()[-1].startswith("ok")


def test_graphs_of_one_size(tmp_path):
    examples = read_examples(graphs([6] * 4), GraphNetwork(), ("x", "edges", "graph"))
    assert examples.is_whole
    assert not examples.others
    sizes = write_onnx(GraphNetwork().eval(), inputs(6), tmp_path / "model.onnx")
    assert sizes == {"x": [6, 5], "edges": [2, 13], "graph": [6]}
    fitting = Fitting(one_by_one(graphs([6, 7, 6])), sizes, GraphNetwork(), ("x", "edges", "graph"))
    assert [len(batch["x"]) for batch in fitting] == [6, 6]


class ByLength(GraphNetwork):
    """len() is a number of Python's, which exporters take for a constant."""

    def forward(self, x, edges, graph):
        return super().forward(x, edges, graph) + len(x)


class ByCount(nn.Module):
    """Reads a number that differs from one to the other."""

    def forward(self, x, edges, graph):
        return torch.zeros(1, 2) + int(edges.sum()) + x.sum()


def test_what_computes_otherwise_in_another_size_is_fixed(tmp_path):
    for network in (ByLength().eval(), ByCount()):
        sizes = write_onnx(network, inputs(6), tmp_path / "model.onnx", others=[inputs(7, 1), inputs(4, 2)])
        predictor = OnnxPredictor(tmp_path / "model.onnx")
        for one in (inputs(6), inputs(7, 1)):
            fits = all(s in (None, g) for n in sizes for s, g in zip(sizes[n], one[n].shape, strict=True))
            assert not fits or torch.allclose(predictor(one), network(**one), rtol=1e-4)
        assert sizes["x"] == [6, 5]


class Counted(nn.Module):
    """Its code takes the number of samples for a constant when it is exported."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(x.reshape(len(x), 6))


def test_a_file_for_one_number_of_samples_is_worth_more_than_none(tmp_path):
    torch.manual_seed(0)
    dataset = torch.utils.data.TensorDataset(torch.randn(20, 2, 3), torch.randint(3, (20,)))
    loader = torch.utils.data.DataLoader(dataset, 8)
    report = export_model(Counted(), loader, tmp_path / "a", program=False, progress=False)
    assert report.samples == 16  # the last batch has 4
    (row,) = report.rows
    assert row.difference < 1e-5
    assert list(row.latency) == [8]
    assert any("takes one number of samples alone: the files take exactly these shapes" in w for w in report.warnings)

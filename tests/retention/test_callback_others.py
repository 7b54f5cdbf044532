"""The monitor of retention on models that others compress, and over processes."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelPruning
from processes import run_script
from retention_runs import FAST, Module, run
from torch import nn

from lit_xai import RetentionMonitor


class CutByTorchPruning(Callback):
    """Torch-Pruning's own pruner, in the middle of a run, with new optimizers."""

    def on_train_epoch_start(self, trainer, pl_module):
        import torch_pruning

        if trainer.current_epoch == 1:
            network = pl_module.network
            pruner = torch_pruning.pruner.MagnitudePruner(
                network,
                torch.zeros(1, 12),
                torch_pruning.importance.MagnitudeImportance(),
                pruning_ratio=0.5,
                ignored_layers=[network[-1]],
            )
            pruner.step()
            trainer.strategy.setup_optimizers(trainer)


@pytest.mark.parametrize("compress", [CutByTorchPruning, lambda: ModelPruning("l1_unstructured", amount=0.5)])
def test_models_that_others_compress(compress, tmp_path):
    monitor = RetentionMonitor(on_error="raise", **FAST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, module = run(tmp_path, compress(), monitor, epochs=3)
    found = json.loads((tmp_path / "retention" / "retention.json").read_text())
    assert [one["when"] for one in found["history"]] == ["epoch 0", "epoch 1", "epoch 2"]
    assert -1 < monitor.result["IntegratedGradients"].similarity < 0.999
    weights = [m.weight for m in module.network if isinstance(m, nn.Linear)]
    assert weights[0].shape[0] == 8 or (weights[0] == 0).float().mean() > 0.3


def test_torchaos_weights_are_compared(tmp_path):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    from lit_xai.functional import measure_retention

    torch.manual_seed(0)
    dense = Module(64).network
    rounded = Module(64).network
    rounded.load_state_dict(dense.state_dict())
    quantize_(rounded, Int8WeightOnlyConfig())
    found = measure_retention(dense, rounded, torch.randn(64, 12), nulls=3, ladder=(8, 2))
    assert 0.98 < found.similarity < 1
    assert found.similarity > found.references["2 bits"]


@pytest.mark.slow
def test_two_processes(tmp_path):
    for processes in (1, 2):
        run_script(Path(__file__).with_name("ddp_retention.py"), tmp_path, processes=processes)
    alone, both = (json.loads((tmp_path / name / "retention" / "retention.json").read_text()) for name in ("1", "2"))
    for name in ("IntegratedGradients", "Occlusion"):
        one, two = alone["explainers"][name], both["explainers"][name]
        assert one["n"] == two["n"] == 40
        assert two["similarity"] == pytest.approx(one["similarity"], abs=1e-5)
        assert two["null"]["similarity"] == pytest.approx(one["null"]["similarity"], abs=0.05)
    assert both["predictions"]["flips"] == alone["predictions"]["flips"]

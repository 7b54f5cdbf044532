"""Every path that 0.1 had, and its README, configs and docstrings named, still leads somewhere, with a warning."""

import importlib
import subprocess
import sys

import pytest

from lit_xai import moved

NAMED = [
    "lit_xai.functional.exporting.export_onnx",
    "lit_xai.functional.distillation.l2",
    "lit_xai.functional.distillation.kl_divergence",
    "lit_xai.functional.prunable.Prunable",
    "lit_xai.functional.quantization_sensitivity.quantization_sensitivity",
    "lit_xai.functional.unfolded.UnfoldedUpdates",
    "lit_xai.callbacks.structured_pruning.StructuredPruning",
    "lit_xai.steps.apply_step_",
    "lit_xai.steps.cutting.Prune",
    "lit_xai.checkpoints.read_checkpoint",
    "lit_xai.attaching.wrap",
    "lit_xai.spelling.nearest",
]
STAYED = ["lit_xai.recipe.take_step_", "lit_xai.recipe.load_from_checkpoint", "lit_xai.functional.attribute"]


def fresh(code):
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


@pytest.mark.parametrize("old", moved.MOVED)
def test_every_module_has_a_successor(old):
    importlib.import_module(moved.MOVED[old])


def test_old_paths_give_the_same_objects_and_warn():
    checks = "\n".join(
        f"from {path.rpartition('.')[0]} import {path.rpartition('.')[2]} as one; assert one is not None"
        for path in NAMED
    )
    said = fresh(checks)
    for path in NAMED:
        old = path.rpartition(".")[0]
        assert f"{old} is now {moved.MOVED[old]}" in said


def test_paths_that_stay_do_not_warn():
    checks = "\n".join(f"from {path.rpartition('.')[0]} import {path.rpartition('.')[2]}" for path in STAYED)
    assert "is now" not in fresh(checks)


def test_an_unknown_name_in_an_old_module_is_an_ordinary_error():
    code = """
import lit_xai
try:
    from lit_xai.functional.distillation import l3
except ImportError as error:
    print(error)
else:
    raise SystemExit(1)
try:
    import lit_xai.functional.nothing
except ModuleNotFoundError:
    pass
"""
    fresh(code)

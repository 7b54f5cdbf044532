"""Importing is cheap, and what is heavy comes when it is used."""

import json
import subprocess
import sys

HEAVY = [
    *("captum", "torch_pruning", "torchao", "matplotlib", "onnx", "onnxruntime", "sklearn", "transformers"),
    *("openvino", "executorch"),
    *("mlflow", "wandb", "tensorboard", "lightning", "pytorch_lightning", "pydantic"),
]


def loaded_by(code: str) -> set[str]:
    """Return which of the heavy packages a fresh process has loaded after ``code``."""
    program = f"import json, sys\n{code}\nprint(json.dumps([n for n in {[*HEAVY, 'torch']} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_itself_loads_nothing():
    assert loaded_by("import lit_xai") == set()


def test_a_monitor_loads_nothing_that_lightning_does_not():
    # Lightning's own import brings matplotlib and transformers along where they are installed, through torchmetrics.
    assert loaded_by("import lit_xai; lit_xai.AttributionMonitor()") == loaded_by("import lightning.pytorch")


def test_without_lightning_the_functions_load_nothing_but_torch():
    assert loaded_by("import lit_xai; lit_xai.functional.attribute") == {"torch"}


def test_public_names():
    import lit_xai

    assert lit_xai.AttributionMonitor.__name__ in dir(lit_xai)
    assert lit_xai.functional.attribute.__module__ == "lit_xai.attribution.attribution"

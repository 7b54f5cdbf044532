"""ONNX Runtime is imported in one place, and contacts nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from silence import PACKAGE, SECONDS, cut_network, environment, imports, looked_up
from torch import nn

from lit_xai.export.inference import write_inference
from lit_xai.runtime.onnx import export_onnx
from lit_xai.runtime.session import TELEMETRY, import_onnxruntime

OPEN = """
import sys, time
{imports}
options = onnxruntime.SessionOptions()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
time.sleep({seconds})
"""
OURS = "from lit_xai.runtime.session import import_onnxruntime; onnxruntime = import_onnxruntime()"


def test_one_file_imports_it_and_the_script_that_stands_alone():
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "benchmarks").glob("*.py")]
    found = [file for file in files if any(name.split(".")[0] == "onnxruntime" for name in imports(file))]
    assert sorted(file.name for file in found) == ["infer_template.py", "session.py"]
    # The script says it before its import; its text is what an export writes.
    script = (PACKAGE / "export" / "infer_template.py").read_text(encoding="utf-8")
    assert script.index('setdefault("ORT_DISABLE_TELEMETRY", "1")') < script.index("import onnxruntime")


def test_the_variable_is_set_before_the_import():
    code = f"import sys; {OURS}; assert 'onnxruntime' in sys.modules; import os; print(os.environ['{TELEMETRY}'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_the_users_word_stands_and_an_earlier_import_is_told_once(monkeypatch):
    import onnxruntime

    import_onnxruntime.cache_clear()
    monkeypatch.setenv(TELEMETRY, "0")
    assert import_onnxruntime() is onnxruntime
    assert os.environ[TELEMETRY] == "0"
    import_onnxruntime.cache_clear()
    monkeypatch.delenv(TELEMETRY)
    with pytest.warns(UserWarning, match="imported before lit_xai could switch off its telemetry"):
        import_onnxruntime()
    import_onnxruntime()  # a warning is an error here


@pytest.fixture
def network(tmp_path: Path) -> Path:
    inputs = torch.rand(2, 4)
    export_onnx(nn.Linear(4, 2), inputs, tmp_path / "model.onnx")
    write_inference(tmp_path, {"model.onnx": 1e-3}, inputs)
    return tmp_path / "model.onnx"


@pytest.mark.slow
@cut_network
def test_an_open_session_looks_up_nothing(network, tmp_path):
    for code, expected in (("import onnxruntime", True), (OURS, False), ("import infer, onnxruntime", False)):
        program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + OPEN.format(imports=code, seconds=SECONDS)
        names = looked_up(tmp_path, sys.executable, "-c", program, network)
        assert bool(names) is expected, (code, names)  # the first shows that the name server sees it


@pytest.mark.slow
@pytest.mark.timeout(1200)
@cut_network
def test_the_full_demo_looks_up_nothing(tmp_path):
    run = "import sys, time; from lit_xai.cli import main; end = main(['demo', '--full'])"
    assert looked_up(tmp_path, sys.executable, "-c", f"{run}; time.sleep({SECONDS}); sys.exit(end)") == []

"""What a command looks up with the network cut, for tests that packages contact nobody."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lookups
import pytest

import lit_xai
from lit_xai.runtime.session import TELEMETRY

PACKAGE = Path(lit_xai.__file__).parent
SECONDS = 20  # ONNX Runtime 1.32 looks up its host ten seconds after the import


def environment() -> dict[str, str]:
    """Return this process's environment without what switches telemetry off, and with this checkout's package."""
    own = {name: value for name, value in os.environ.items() if name != TELEMETRY}
    return {**own, "PYTHONPATH": str(PACKAGE.parent)}


def imports(file: Path) -> set[str]:
    """Return the names of the modules that a file imports, at its top or inside functions."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def looked_up(tmp_path: Path, *command: object) -> list[str]:
    """Return the names that a command looks up with the network cut."""
    result = tmp_path / "lookups.json"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
    stub = [*unshare, sys.executable, lookups.__file__, str(result), *map(str, command)]
    done = subprocess.run(stub, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=900)
    found = json.loads(result.read_text())
    assert found["code"] == 0, done.stderr[-2000:]
    assert found["without_route"] == 0  # and nothing is sent to an address that it had without a name
    return sorted({*found["names"]})


def can_cut_the_network() -> bool:
    """Return whether this machine has namespaces of its own for a process."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "--net", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


cut_network = pytest.mark.skipif(not can_cut_the_network(), reason="needs namespaces of its own")

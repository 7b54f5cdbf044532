"""The layout of the package, beyond what the import contracts say."""

import ast
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import lit_xai

PACKAGE = Path(lit_xai.__file__).parent
ROOT = Path(__file__).parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))
# Their ``__init__`` hands out names that users import: networks and data in YAML, figures, the export.
FACES = {"callbacks", "cli", "data", "export", "functional", "models", "render"}


def room(file: Path) -> str:
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_private_name_crosses_a_room(file):
    taken = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lit_xai.")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__") and node.module.split(".")[1] != room(file)
    ]
    assert taken == []


def test_rooms_import_nothing_by_themselves():
    for init in PACKAGE.glob("*/__init__.py"):
        if room(init) not in FACES:
            body = ast.parse(init.read_text()).body
            assert len(body) == 1, f"{init}: only a docstring is expected"


def test_no_room_holds_the_house():
    lines = Counter()
    for file in FILES:
        lines[room(file)] += len(file.read_text().splitlines())
    largest, n = lines.most_common(1)[0]
    assert n / lines.total() <= 0.18, f"{largest} holds {n / lines.total():.0%} of the package"


def test_tests_mirror_the_package():
    tests = Path(__file__).parent
    rooms = {room(file) for file in FILES} - {"", "callbacks", "functional"}
    assert rooms <= {folder.name for folder in tests.iterdir() if folder.is_dir()}
    for file in tests.glob("*/test_*.py"):
        folder, name = file.parent.name, file.stem.removeprefix("test_")
        if folder in rooms:
            modules = [path.stem for path in (PACKAGE / folder).glob("*.py")] + ["main"]
            about_one = any(name == module or name.startswith(f"{module}_") for module in modules)
            assert about_one or name in WHOLE_ROOMS.get(folder, ()), f"{file}: about which module?"


WHOLE_ROOMS = {
    "attribution": ("ddp", "loggers", "side_effects", "tensorboard"),
    "distillation": ("ddp", "refusals", "resume"),
    "export": ("ddp", "dense_outputs"),
    "pruning": ("ddp", "networks", "own_importance"),
    "quantization": ("ddp",),
    "cli": ("distillation", "stacking", "trust"),
    "models": ("cli",),
}
"""Tests of what a whole room does, by the room."""


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is tracked is known in a clone alone")
def test_no_run_left_its_files_among_the_tracked_ones():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {name.partition("/")[0] for name in listed.splitlines() if "/" in name}
    assert folders == {".ci", "benchmarks", "configs", "docs", "lit_xai", "logs", "tests"}

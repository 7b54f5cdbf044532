"""The list of other people's projects says which of them are tried, and is broad."""

import ast
import re
from collections import Counter
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks" / "projects"
ROWS = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)


def test_each_project_of_the_list_is_built_by_a_function_of_its_name():
    trees = [ast.parse(file.read_text()) for file in FOLDER.glob("*.py")]
    functions = [one for tree in trees for one in tree.body if isinstance(one, ast.FunctionDef) and one.decorator_list]
    assert sorted(one.name for one in functions) == sorted(name for name, _, _ in ROWS)


def test_no_package_and_no_kind_makes_up_the_list():
    packages = Counter(package.split(",")[0].split(" ")[-1] if "github" in package else package for *_, package in ROWS)
    kinds = Counter(kind.strip() for _, text, _ in ROWS for kind in text.split(","))
    assert len(ROWS) >= 40
    assert max(packages.values()) <= 3
    wanted = ["time series", "tabular", "graphs", "molecules", "single-cell", "anomaly detection", "self-supervised"]
    wanted += ["GAN", "reinforcement learning", "segmentation", "detection", "Hugging Face fine-tuning", "speech"]
    assert all(kinds[kind] >= 2 for kind in wanted)

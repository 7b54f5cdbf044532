"""The versions that are promised, and those that are tested, agree."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
EVERY = [Requirement(line) for line in [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]]
RUN = [line for line in EXTRAS["openvino"] if not line.startswith("lit-xai")]
USED = [Requirement(line) for line in (*PROJECT["dependencies"], *EXTRAS["export"], *RUN)]


def lowest(requirement: Requirement) -> Version:
    return next(Version(bound.version) for bound in requirement.specifier if bound.operator == ">=")


def pinned(file: str) -> dict[str, Version]:
    lines = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / file).read_text(), re.MULTILINE)
    return {canonical(name): Version(version) for name, version in lines}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("requirement", EVERY, ids=str)
def test_the_pinned_set_is_within_the_ranges(requirement):
    version = pinned("constraints.txt").get(canonical(requirement.name))
    assert requirement.name == "lit-xai" or version in requirement.specifier


@pytest.mark.parametrize("requirement", USED, ids=str)
def test_the_oldest_set_is_the_lower_bounds(requirement):
    assert pinned("constraints-oldest.txt").get(canonical(requirement.name)) == lowest(requirement)


def test_the_oldest_set_pins_nothing_else():
    # Lightning's other package, which tests use, goes with the first.
    assert set(pinned("constraints-oldest.txt")) == {canonical(one.name) for one in USED} | {"pytorch-lightning"}
    assert pinned("constraints-oldest.txt")["pytorch-lightning"] == pinned("constraints-oldest.txt")["lightning"]


def test_what_an_export_needs_is_an_extra():
    assert [one.name for one in USED if one.name in ("onnx", "onnxscript", "onnxruntime", "torchao")] == [
        Requirement(line).name for line in EXTRAS["export"]
    ]


def test_the_linters_are_installed_with_every_package_whose_types_mypy_reads():
    (overrides,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    untyped = {name.partition(".")[0] for name in overrides["module"]}
    (given,) = re.findall(r"/\.lint: EXTRAS = \[(.*)\]", (ROOT / "Makefile").read_text())
    installed = {Requirement(one).name for extra in given.split(",") for one in EXTRAS[extra]}
    source = "\n".join(file.read_text() for file in (ROOT / "lit_xai").rglob("*.py"))
    distributions = packages_distributions()
    for extra in EXTRAS.keys() - {"test", "docs", "lint"}:
        for name in {Requirement(one).name for one in EXTRAS[extra]} - installed:
            modules = {module for module, owners in distributions.items() if name in owners}
            imported = {
                module for module in modules if re.search(rf"^\s*(from|import) {module}\b", source, re.MULTILINE)
            }
            assert imported <= untyped, f"mypy reads {imported}, but the linters are installed without [{extra}]"

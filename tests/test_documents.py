"""Pages name only what is there: links, anchors, files, import paths."""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from documents import ROOT, as_it_was

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if not {"_build", "reference"} & set(page.relative_to(ROOT).parts)]

LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(?!\{figure)[^\n]*\n.*?^```$", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"^```\{figure\} (\S+)$", re.MULTILINE)
PATH = re.compile(r"`((?:lit_xai|tests|docs|configs|benchmarks|\.ci)/[\w./*-]*|[A-Z]+\.md|[\w.-]+\.(?:toml|txt))`")
DOTTED = re.compile(r"lit_xai(?:\.\w+)+")


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request):
    return request.param


def prose(page):
    return BLOCK.sub("", page.read_text())


def anchors(page):
    """Anchors as GitHub and MyST make them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_lead_somewhere(page):
    dead = []
    for address in [*LINK.findall(prose(page)), *FIGURE.findall(page.read_text())]:
        parts = urlsplit(address)
        if parts.scheme:
            dead += [] if parts.scheme in ("http", "https") and "." in parts.netloc else [address]
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        is_there = target.is_file() and (not parts.fragment or parts.fragment in anchors(target))
        dead += [] if is_there else [address]
    assert not dead


def test_named_files_are_there(page):
    missing = [path for path in PATH.findall(prose(page)) if not list(ROOT.glob(path.rstrip("/")))]
    assert not [path for path in missing if path != "lit_xai/configs/"]  # of an installed package


def test_named_imports_are_there(page):
    missing = []
    for name in set(DOTTED.findall(page.read_text())) - {"lit_xai.egg"}:
        module, _, attribute = name.rpartition(".")
        try:
            is_there = find_spec(name) is not None
        except ModuleNotFoundError:  # the last but one is no package
            is_there = False
        if not is_there and not hasattr(import_module(module), attribute):
            missing.append(name)
    assert not missing


def test_every_page_is_in_a_menu():
    menus = "\n".join(page.read_text() for page in PAGES if "{toctree}" in page.read_text())
    listed = {line.strip().rpartition("/")[2] for line in menus.splitlines()}
    pages = [page for page in PAGES if page.parent != ROOT and page.stem != "index"]
    assert pages
    assert not [str(page) for page in pages if page.stem not in listed]


def test_pictures_that_pages_show_are_small():
    for picture in (ROOT / "docs").rglob("*.png"):
        if "_build" not in picture.parts:
            assert picture.stat().st_size < 200_000, picture


def test_this_file_sees_pages():
    assert len(PAGES) > 15
    assert Path(ROOT / "docs" / "start.md") in PAGES


def test_what_a_page_registers_is_gone_with_it():
    import torch

    from lit_xai.structure.kinds import StepKind, kind_named, register_kind

    class Nothing(StepKind):
        name, label = "tests.nothing", "nothing"

        def apply_(self, network, step, optimizers=()):
            pass

        def undo_(self, network, step):
            pass

    state = torch.get_rng_state()
    with as_it_was():
        register_kind(Nothing())
        torch.manual_seed(7)
        assert kind_named("tests.nothing").label == "nothing"
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="tests"):
        kind_named("tests.nothing")

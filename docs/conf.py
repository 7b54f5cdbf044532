"""The documentation site: MyST pages, and a reference that is generated from the package's docstrings."""

import ast
import inspect
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

HERE = Path(__file__).parent
ROOT = HERE.parent
# The package of this folder, and the modules that examples on the pages import.
sys.path[:0] = [str(ROOT), str(HERE)]

from check_site import problems  # noqa: E402  # found through the line above

from lit_xai import __version__  # noqa: E402  # likewise

project = "lit_xai"
author = "The lit_xai authors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"lit_xai {release}"
html_static_path = ["_static"]
html_css_files = ["lit_xai.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# --- the reference ----------------------------------------------------------------------------------------------------

ROOMS = {
    "attribution": "Attributions: the monitor, and the one call that explains",
    "ranking": "Recommenders: how they rank, and why",
    "pruning": "Structured pruning: which channels go, and how",
    "distillation": "Distillation: losses, teachers, students",
    "quantization": "Quantization: fake-quantize modules, observers, folding",
    "export": "Export: files, parity, the table",
    "trainer": "What talks to a Lightning Trainer",
    "structure": "Recipes, step kinds, checkpoints",
    "runtime": "ONNX files and what runs them",
    "render": "Figures and tables",
    "models": "Modules to train",
    "data": "Data modules",
    "network": "Networks: calling, recording, copying, measuring",
    "cli": "The command line",
}
REFERENCE = HERE / "reference"


def generate_reference(app: Sphinx) -> None:
    """Write a page for each module, so that none is forgotten; they are ignored by git."""
    package, written = ROOT / "lit_xai", set()

    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        written.add(path)
        if not path.exists() or path.read_text() != text:  # Sphinx reads again what is newer than its last build
            path.write_text(text)

    rooms = [folder.name for folder in sorted(package.iterdir()) if (folder / "__init__.py").exists()]
    ordered = [*ROOMS, *(room for room in rooms if room not in {*ROOMS, "callbacks", "functional", "configs"})]
    for room in ordered:
        names = [path.stem for path in sorted((package / room).glob("[a-z]*.py"))]
        for name in names:
            module = f"lit_xai.{room}.{name}"
            page = f"# {room}.{name}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"
            write(REFERENCE / room / f"{name}.md", page)
        table = "\n".join(
            f"| [{name}]({room}/{name}.md) | {summary_of(package / room / f'{name}.py')} |" for name in names
        )
        toc = "\n".join(f"{room}/{name}" for name in names)
        face = _face(room, package / room / "__init__.py")
        page = f"# {room}\n\n{ROOMS.get(room, '')}.\n\n{face}| module | what |\n|---|---|\n{table}\n"
        write(REFERENCE / f"{room}.md", f"{page}\n```{{toctree}}\n:hidden:\n\n{toc}\n```\n")
    for path in set(REFERENCE.rglob("*.md")) - written:
        path.unlink()


def _face(room: str, path: Path) -> str:
    """Return the sentence on the names that a room's ``__init__`` hands on."""
    listed = next((one for one in ast.parse(path.read_text()).body if _is_all(one)), None)
    if listed is None:
        return ""
    names = ", ".join(f"`{name}`" for name in ast.literal_eval(listed.value))
    return f"`lit_xai.{room}` hands on {names}.\n\n"


def _is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"


def summary_of(path: Path) -> str:
    """Return the first paragraph of a module's docstring, for a cell of a table."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split()).replace("|", "\\|").replace("``", "`")


# --- formulas ---------------------------------------------------------------------------------------------------------
# Browsers draw MathML by themselves; MathJax would be a script from another server, or one of 1 MB on every page.


def _visit_inline(translator: Any, node: Any) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def _visit_block(translator: Any, node: Any) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


# --- what has to hold -------------------------------------------------------------------------------------------------


def resolve_public_name(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Lead a reference to a public name, such as ``lit_xai.ModelExport``, to the page of the module that defines it.

    Warns of a reference into this package that leads nowhere; torch's and Lightning's are not links here.
    """
    target = str(node.get("reftarget", ""))
    if not target.startswith("lit_xai.") or node.get("refdomain") != "py":
        return None
    module, _, name = target.rpartition(".")
    found = getattr(import_module(module), name, None) if find_spec(module) else None
    if isinstance(found, TypeVar):
        return None
    home = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', name)}"
    domain = env.get_domain("py")
    if found is None or home not in domain.objects:
        logging.getLogger(__name__).warning("dead reference: %s", target, location=node)
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, contnode)


def check_built_site(app: Sphinx, exception: Exception | None) -> None:
    """Refuse a site with a dead link, or one that would load anything from elsewhere."""
    if exception is None and app.builder.name == "html" and (found := problems(Path(app.outdir))):
        raise ExtensionError("\n".join(["The built site has problems:", *found]))


def drop_foreign_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Leave out the docstrings that classes inherit from torch and Lightning: they refer to pages that are not here."""
    owner = inspect.getmodule(obj)
    if owner is not None and not owner.__name__.startswith("lit_xai"):
        lines[:] = []


def keep_colons(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading the docstring ``X: Y`` of a constant or a property as its type and its text."""
    if what in ("attribute", "data", "property") and lines:
        lines.insert(0, "\\ ")  # napoleon looks at the first line alone; an escaped space is nothing in reST


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Leave out what Annotated says: the argument's own text says it too."""
    short = None if signature is None else re.sub(r"Annotated\[((?:[^\[\]]|\[[^\]]*\])*?), '[^']*'\]", r"\1", signature)
    return short, returns


def setup(app: Sphinx) -> None:
    """Register the hooks above."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    app.connect("builder-inited", generate_reference)
    app.connect("missing-reference", resolve_public_name)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", drop_foreign_docstring)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # napoleon's is 500
    app.connect("build-finished", check_built_site)

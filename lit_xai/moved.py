"""Modules of 0.1 under their old names, for one release: importing one warns and returns the names of its successor."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ROOMS = {
    "network": "calling layers opaque probing profiling recording saving untouched",
    "structure": "positions",
    "trainer": "scheduling",
    "attribution": "adapter attribution baselines differentiable explanation methods options pitfalls",
    "pruning": "heads importance importance_attribution masked moves prunable pruning searching sensitivity sparsity"
    " targets",
    "quantization": "fake_quantize fake_quantizers folding integers observers quantization rounding running unfolded",
    "distillation": "output_cache",
    "runtime": "latency",
}
"""Where the modules of ``lit_xai.functional`` that kept their names are now."""

MOVED = {
    **{
        f"lit_xai.functional.{name}": f"lit_xai.{room}.{name}"
        for room, names in ROOMS.items()
        for name in names.split()
    },
    "lit_xai.functional.distillation": "lit_xai.distillation.losses",
    "lit_xai.functional.exporting": "lit_xai.runtime.onnx",
    "lit_xai.functional.quantization_sensitivity": "lit_xai.quantization.sensitivity",
    "lit_xai.callbacks.attribution_monitor": "lit_xai.attribution.callback",
    "lit_xai.callbacks.explanation_matching": "lit_xai.distillation.explanation_matching",
    "lit_xai.callbacks.knowledge_distillation": "lit_xai.distillation.callback",
    "lit_xai.callbacks.model_export": "lit_xai.export.callback",
    "lit_xai.callbacks.quantization_aware_training": "lit_xai.quantization.callback",
    "lit_xai.callbacks.structured_pruning": "lit_xai.pruning.callback",
    "lit_xai.steps": "lit_xai.structure.kinds",
    "lit_xai.steps.cutting": "lit_xai.pruning.step",
    "lit_xai.steps.folding": "lit_xai.quantization.steps",
    "lit_xai.steps.following": "lit_xai.structure.following",
    "lit_xai.steps.quantizing": "lit_xai.quantization.steps",
    "lit_xai.attaching": "lit_xai.structure.attaching",
    "lit_xai.checkpoints": "lit_xai.structure.checkpoints",
    "lit_xai.spelling": "lit_xai.network.spelling",
}
"""New names by the old ones."""


class MovedModules(MetaPathFinder, Loader):
    """Finder and loader of modules that moved, with the names of their successors."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for old names alone."""
        return ModuleSpec(fullname, self, is_package=fullname == "lit_xai.steps") if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and look up every name in the successor."""
        new = MOVED[module.__name__]
        warnings.warn(
            f"{module.__name__} is now {new}: the old name will be removed in the next release.",
            FutureWarning,
            stacklevel=2,
        )

        def look_up(name: str) -> Any:
            return getattr(import_module(new), name)

        module.__getattr__ = look_up  # type: ignore[method-assign]  # PEP 562: a module's own __getattr__


def install() -> None:
    """Make the old names importable."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        # Last: only names that no other finder knows get here.
        sys.meta_path.append(MovedModules())

"""Shrink a Lightning model and see, in the same run, whether its explanations survive."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lit_xai import moved

if TYPE_CHECKING:
    from lit_xai import functional as functional
    from lit_xai.callbacks import AttributionMonitor as AttributionMonitor
    from lit_xai.callbacks import ExplanationMatching as ExplanationMatching
    from lit_xai.callbacks import FollowRecipe as FollowRecipe
    from lit_xai.callbacks import KnowledgeDistillation as KnowledgeDistillation
    from lit_xai.callbacks import ModelExport as ModelExport
    from lit_xai.callbacks import ModelMonitor as ModelMonitor
    from lit_xai.callbacks import ModelReport as ModelReport
    from lit_xai.callbacks import PartialDependence as PartialDependence
    from lit_xai.callbacks import QuantizationAwareTraining as QuantizationAwareTraining
    from lit_xai.callbacks import RankingMonitor as RankingMonitor
    from lit_xai.callbacks import RetentionMonitor as RetentionMonitor
    from lit_xai.callbacks import StructuredPruning as StructuredPruning
    from lit_xai.callbacks import SurrogateTree as SurrogateTree
    from lit_xai.callbacks import TranslationMonitor as TranslationMonitor
    from lit_xai.callbacks import WeightConstraint as WeightConstraint
    from lit_xai.overview.callback import inspect as inspect
    from lit_xai.recipe import load_from_checkpoint as load_from_checkpoint

__version__ = "0.1.0"

moved.install()

# Loaded when first asked for: importing the package costs nothing, and the command line starts without torch.
_WHERE = {
    "AttributionMonitor": "lit_xai.attribution.callback",
    "FollowRecipe": "lit_xai.trainer.structural_callback",
    "ExplanationMatching": "lit_xai.distillation.explanation_matching",
    "KnowledgeDistillation": "lit_xai.distillation.callback",
    "ModelExport": "lit_xai.export.callback",
    "ModelMonitor": "lit_xai.attribution.model_monitor",
    "ModelReport": "lit_xai.report.callback",
    "PartialDependence": "lit_xai.attribution.partial_dependence",
    "QuantizationAwareTraining": "lit_xai.quantization.callback",
    "RankingMonitor": "lit_xai.ranking.callback",
    "RetentionMonitor": "lit_xai.retention.callback",
    "StructuredPruning": "lit_xai.pruning.callback",
    "SurrogateTree": "lit_xai.attribution.surrogate_tree",
    "TranslationMonitor": "lit_xai.attribution.translation_monitor",
    "WeightConstraint": "lit_xai.pruning.weight_constraint",
    "inspect": "lit_xai.overview.callback",
    "load_from_checkpoint": "lit_xai.recipe",
}

__all__ = [
    "AttributionMonitor",
    "ExplanationMatching",
    "FollowRecipe",
    "KnowledgeDistillation",
    "ModelExport",
    "ModelMonitor",
    "ModelReport",
    "PartialDependence",
    "QuantizationAwareTraining",
    "RankingMonitor",
    "RetentionMonitor",
    "StructuredPruning",
    "SurrogateTree",
    "TranslationMonitor",
    "WeightConstraint",
    "__version__",
    "functional",
    "inspect",
    "load_from_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name == "functional":
        return import_module("lit_xai.functional")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'lit_xai' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

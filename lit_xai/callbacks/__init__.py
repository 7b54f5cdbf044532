"""Callbacks for any Lightning Trainer."""

from lit_xai.attribution.callback import AttributionMonitor
from lit_xai.attribution.model_monitor import ModelMonitor
from lit_xai.attribution.partial_dependence import PartialDependence
from lit_xai.attribution.surrogate_tree import SurrogateTree
from lit_xai.attribution.translation_monitor import TranslationMonitor
from lit_xai.distillation.callback import KnowledgeDistillation
from lit_xai.distillation.explanation_matching import ExplanationMatching
from lit_xai.export.callback import ModelExport
from lit_xai.pruning.callback import StructuredPruning
from lit_xai.pruning.weight_constraint import WeightConstraint
from lit_xai.quantization.callback import QuantizationAwareTraining
from lit_xai.ranking.callback import RankingMonitor
from lit_xai.report.callback import ModelReport
from lit_xai.retention.callback import RetentionMonitor
from lit_xai.trainer.structural_callback import FollowRecipe, StructuralCallback

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
    "StructuralCallback",
    "StructuredPruning",
    "SurrogateTree",
    "TranslationMonitor",
    "WeightConstraint",
]

"""Callbacks for any Lightning Trainer."""

from lit_xai.callbacks.attribution_monitor import AttributionMonitor
from lit_xai.callbacks.explanation_matching import ExplanationMatching
from lit_xai.callbacks.knowledge_distillation import KnowledgeDistillation
from lit_xai.callbacks.model_export import ModelExport
from lit_xai.callbacks.quantization_aware_training import QuantizationAwareTraining
from lit_xai.callbacks.structured_pruning import StructuredPruning

__all__ = [
    "AttributionMonitor",
    "ExplanationMatching",
    "KnowledgeDistillation",
    "ModelExport",
    "QuantizationAwareTraining",
    "StructuredPruning",
]

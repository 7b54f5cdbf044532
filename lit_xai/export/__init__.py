"""A trained network as files that run without this library, and a report on whether they do what it did.

Exporting, checking and measuring are plain functions; onnx and onnxruntime are imported when the first one runs.
"""

from lit_xai.export.checking import check_onnx
from lit_xai.export.metadata import read_metadata
from lit_xai.export.model import export_model
from lit_xai.export.report import ExportReport, Row
from lit_xai.runtime.inspection import Operator, inspect_onnx

__all__ = ["ExportReport", "Operator", "Row", "check_onnx", "export_model", "inspect_onnx", "read_metadata"]

"""Callbacks for any Lightning Trainer."""

from lit_xai.callbacks.attribution_monitor import AttributionMonitor

__all__ = ["AttributionMonitor"]

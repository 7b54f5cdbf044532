"""Explanations of a network's predictions: one safe ``attribute``, and the callback that shows it every epoch."""

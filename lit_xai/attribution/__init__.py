"""Explanations of a network's predictions: the safe ``attribute``, and the callback that draws them every epoch."""

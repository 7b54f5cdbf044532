"""Structured pruning: which channels can be removed, which should be, and the callback that removes them."""

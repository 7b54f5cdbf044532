"""Explanations before and after a change: how much of them is left, and how faithful they are."""

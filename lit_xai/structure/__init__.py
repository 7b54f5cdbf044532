"""Structural change: the recipe of steps, its replay, and checkpoints that carry it."""

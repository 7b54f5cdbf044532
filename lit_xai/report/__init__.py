"""A verdict on a run, and the report that shows it."""

"""A search over compressions of the user's own module: its settings, its storage, its workers, and its report."""

"""The base of all other packages: calling, recording, copying, measuring and restoring a network."""

"""The ground: how a network is called, recorded, copied, measured, and left as it was."""

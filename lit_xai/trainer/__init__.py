"""Everything that talks to a Lightning Trainer, whichever callback asks."""

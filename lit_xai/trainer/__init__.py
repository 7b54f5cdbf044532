"""Everything that talks to a Lightning Trainer, shared by all callbacks."""

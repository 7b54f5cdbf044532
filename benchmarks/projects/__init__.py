"""Projects of other people, small: see README.md and the script of this name."""

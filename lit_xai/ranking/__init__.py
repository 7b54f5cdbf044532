"""Rankings: how good they are, what they are made of, and what compression changes in them."""

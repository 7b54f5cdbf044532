"""What each callback would do with a module, told before anything is trained."""

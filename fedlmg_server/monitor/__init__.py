"""A run while it runs: progress, other terminals, trackers."""

"""Follow a run while it runs: progress in the terminal, `fedlmg watch`, experiment trackers."""

"""Experiments: settings and seeds, and on each the rivals or the variants of synthesis, in one table."""

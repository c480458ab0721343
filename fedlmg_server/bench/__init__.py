"""Experiments: settings and seeds, and on each the baselines or the variants of synthesis, in one table."""

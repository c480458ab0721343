"""The aggregated model, trained on synthetic images."""

"""Training of a small diffusion pipeline."""

"""Guided synthesis: images like the ones a client saw, drawn by a diffusion model under that client's classifier."""

"""Guided synthesis: a diffusion model generates images like a client's, guided by that client's classifier."""

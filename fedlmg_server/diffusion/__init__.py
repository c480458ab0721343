"""Diffusion models behind one contract; only this package imports diffusers and transformers."""

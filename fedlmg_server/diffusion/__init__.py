"""Diffusion models behind one contract; the only place that imports diffusers and transformers."""

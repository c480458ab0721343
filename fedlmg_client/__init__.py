"""A client: trains a classifier on its own images, uploads it once, and gets a better model back."""

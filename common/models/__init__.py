"""Classifiers: by name, in training, finished and exported."""

"""Classifiers: built by name, initialised, measured, saved, loaded and exported."""

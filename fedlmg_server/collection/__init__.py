"""Collect uploads from clients, validate them, and store them in the workspace."""

"""Readers of image folders, in any of the known layouts."""

"""Examinations of a finished run."""

"""Datasets that ship with FedLMG or that it makes from files of installed packages."""

"""Data sets that ship with FedLMG or with installed packages."""

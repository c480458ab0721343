"""Flower's command line, driven; and every private name of Flower or torch that we touch."""

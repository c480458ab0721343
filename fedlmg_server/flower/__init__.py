"""Run Flower's command line, and keep all private names of Flower or torch that the server uses."""

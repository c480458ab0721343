"""From images to a classifier's input, and from its output to an accuracy."""

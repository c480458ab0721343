"""The witness, which tests whether clients call the classes what everybody calls them."""

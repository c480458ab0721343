"""One client's name, images and folders, for real and for virtual clients."""

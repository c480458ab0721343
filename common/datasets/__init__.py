"""What clients learn from: image folders on disk, and the embedded datasets."""

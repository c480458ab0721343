"""Files that survive a crash, and files that ship beside the code."""

"""Files that survive a crash, and files that ship with the code."""

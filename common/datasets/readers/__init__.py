"""Images that lie in folders, in any layout."""

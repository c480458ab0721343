"""From clients to valid uploads in the workspace."""

"""Take one client out of the files of a workspace."""

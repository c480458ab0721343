"""What one client is and holds, real or virtual."""

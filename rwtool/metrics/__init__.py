"""Two label arrays to numbers."""

"""A network, and what it takes to apply it."""

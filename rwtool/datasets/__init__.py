"""Which cases there are, and what belongs together."""

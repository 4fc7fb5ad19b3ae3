"""Rows to means, tests and intervals."""

"""Logits, labels and maps to a number."""

"""Images, labels and maps to a run."""

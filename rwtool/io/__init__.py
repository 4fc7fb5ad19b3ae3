"""The spacing-aware IO layer: volumes in and out of files, and the only place where axes turn."""

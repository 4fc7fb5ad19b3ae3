"""What people read: terminal, CSV, JSON, Markdown, LaTeX."""

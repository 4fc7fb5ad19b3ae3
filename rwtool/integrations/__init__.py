"""Parts for other frameworks; each module imports its framework, and nothing else of rwtool imports one."""

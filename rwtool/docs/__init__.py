"""The pages of the documentation, which the package carries: Markdown, one topic a page."""

from __future__ import annotations

from importlib import resources

TOPICS = (
    "maps",
    "view",
    "losses",
    "integrations",
    "nnunet",
    "training",
    "convergence",
    "evaluation",
    "statistics",
    "files",
    "python",
    "speed",
    "cluster",
    "reliability",
    "paper",
    "errata",
    "contributing",
)


def read_page(topic: str) -> str:
    """Markdown of one of `TOPICS`."""
    return (resources.files(__name__) / f"{topic}.md").read_text(encoding="utf-8")


def read_title(topic: str) -> str:
    """What a page is about: its first line."""
    return read_page(topic).split("\n", 1)[0].removeprefix("# ")

"""``rwtool help``."""

from __future__ import annotations

import difflib
import sys

import click

from rwtool.docs import TOPICS, read_page, read_title
from rwtool.errors import UsageError

_WIDEST = 100  # longer lines are hard to read


@click.command("help", short_help="Explain a topic or a command.")
@click.argument("topic", required=False)
@click.pass_context
def help_(ctx: click.Context, topic: str | None) -> None:
    """Explain a TOPIC, or a command; without one, list the topics.

    \b
    Examples:
      rwtool help
      rwtool help evaluation
      rwtool help train
    """  # noqa: D301
    if topic is None:
        click.echo(_topics(ctx))
        return
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    command = group.get_command(ctx, topic)
    if topic not in TOPICS and command is None:
        raise UsageError(_unknown(topic, [*TOPICS, *group.list_commands(ctx)]))
    parts = [] if command is None else [_command_help(ctx, command)]
    if topic in TOPICS:
        parts.append(_in_terminal(read_page(topic)) if sys.stdout.isatty() else read_page(topic))
    click.echo_via_pager("\n".join(parts))


def _topics(ctx: click.Context) -> str:
    formatter = ctx.make_formatter()
    with formatter.section("Topics"):
        formatter.write_dl([(topic, read_title(topic)) for topic in TOPICS])
    formatter.write_paragraph()
    formatter.write_text(
        "rwtool help TOPIC shows one of them; rwtool help COMMAND, or rwtool COMMAND --help, a command."
    )
    return formatter.getvalue().rstrip("\n")


def _command_help(ctx: click.Context, command: click.Command) -> str:
    with click.Context(command, info_name=command.name, parent=ctx.parent) as inner:
        return command.get_help(inner) + "\n"


def _unknown(topic: str, known: list[str]) -> str:
    close = difflib.get_close_matches(topic.lower(), known)
    meant = f"did you mean {' or '.join(close)}?" if close else f"the topics are {', '.join(TOPICS)}"
    return f"{topic!r} is no topic and no command; {meant}"


def _in_terminal(page: str) -> str:
    """Markdown as a terminal shows it."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.width = min(console.width, _WIDEST)
    with console.capture() as captured:
        console.print(Markdown(page, hyperlinks=False))
    return captured.get()

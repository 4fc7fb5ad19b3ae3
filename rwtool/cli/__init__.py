"""The command line: one thin command a module. Each parses, calls one function and prints."""

from __future__ import annotations

from typing import Any

import click

from rwtool import __version__
from rwtool.cli.check import check
from rwtool.cli.compare import compare
from rwtool.cli.demo import demo
from rwtool.cli.evaluate import evaluate
from rwtool.cli.maps import maps
from rwtool.cli.options import for_shell
from rwtool.cli.predict import predict
from rwtool.cli.train import train
from rwtool.errors import RwtoolError, UsageError


class _Group(click.Group):
    """Turns an error that a user can mend into one readable line; all others keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RwtoolError as error:
            command = self.commands.get(ctx.invoked_subcommand or "", self)
            kind = click.UsageError if isinstance(error, UsageError) else click.ClickException
            raise kind(for_shell(str(error), command)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="rwtool")
def main() -> None:
    """Region-wise maps, losses, training and evaluation for biomedical image segmentation.

    Exit codes: 0 all is well, 1 some cases failed, 2 the command was used wrongly.
    """


main.add_command(maps)
main.add_command(check)
main.add_command(train)
main.add_command(predict)
main.add_command(evaluate)
main.add_command(compare)
main.add_command(demo)

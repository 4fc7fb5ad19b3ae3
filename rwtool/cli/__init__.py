"""The command line: one thin command a module. Each parses, calls one function and prints."""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pkgutil import resolve_name
from types import FrameType
from typing import Any

import click

from rwtool import __version__
from rwtool.cli.options import for_shell
from rwtool.console import COMMAND_LINE, printable_lines
from rwtool.errors import RwtoolError, UsageError, lacks_memory
from rwtool.maps.core import chosen_core

_COMMANDS = {
    "maps": "rwtool.cli.maps:maps",
    "check": "rwtool.cli.check:check",
    "view": "rwtool.cli.view:view",
    "train": "rwtool.cli.train:train",
    "predict": "rwtool.cli.predict:predict",
    "evaluate": "rwtool.cli.evaluate:evaluate",
    "compare": "rwtool.cli.compare:compare",
    "convergence": "rwtool.cli.convergence:convergence",
    "demo": "rwtool.cli.demo:demo",
    "doctor": "rwtool.cli.doctor:doctor",
    "nnunet-path": "rwtool.cli.nnunet_path:nnunet_path",
    "help": "rwtool.cli.help:help_",
}


class _Commands(Mapping[str, click.Command]):
    """The commands by name; each is imported when it is asked for, so that no other waits for it."""

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = resolve_name(_COMMANDS[name])
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class _Stopped(KeyboardInterrupt):
    """A signal that asks this process to end, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()  # what is done is for others to say
        self.number = number


class _Group(click.Group):
    """Turns an error that a user can mend, or an interrupt, into one readable line; all others keep their traceback."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Any:
        words = sys.argv[1:] if args is None else args
        token = COMMAND_LINE.set(shlex.join(["rwtool", *words]))
        with _stoppable() as received, contextlib.ExitStack() as opened:
            opened.callback(COMMAND_LINE.reset, token)
            for name in ("stdout", "stderr"):
                if getattr(sys, name) is None:  # closed by who started this process: nobody reads what is said
                    setattr(sys, name, opened.enter_context(open(os.devnull, "w", encoding="utf-8")))
            try:
                return super().main(args, *others, **options)
            except SystemExit as end:
                if received and end.code == 1:  # click's own, of an interrupt before or after :meth:`invoke`
                    raise SystemExit(128 + received[0]) from None
                raise
            except Exception:
                if received:  # a library has made another error of the interrupt
                    click.echo("interrupted", err=True)
                    raise SystemExit(128 + received[0]) from None
                raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RwtoolError as error:
            command = self.commands.get(ctx.invoked_subcommand or "", self)
            kind = click.UsageError if isinstance(error, UsageError) else click.ClickException
            raise kind(for_shell(printable_lines(str(error)), command)) from error
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            reason = str(error).partition("\n")[0] or "no more is free"
            raise click.ClickException(
                printable_lines(f"not enough memory: {reason}; free some, or ask for less at once")
            ) from error
        except OSError as error:  # of a disk or a permission, wherever it comes up; a closed pipe is for click
            if error.errno in (None, errno.EPIPE) or error.strerror is None:
                raise
            where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
            raise click.ClickException(printable_lines(f"{where}{error.strerror}")) from error
        except click.ClickException as error:
            error.message = printable_lines(error.message)  # type: ignore[misc]  # it quotes what was typed
            raise
        except KeyboardInterrupt as interrupt:
            command = self.commands.get(ctx.invoked_subcommand or "", self)
            done = [for_shell(str(what), command) for what in interrupt.args]
            click.echo(printable_lines(": ".join(("interrupted", *done))), err=True)
            number = interrupt.number if isinstance(interrupt, _Stopped) else signal.SIGINT
            raise SystemExit(128 + number) from None


@contextlib.contextmanager
def _stoppable() -> Iterator[list[int]]:
    """End on SIGTERM, and where the terminal goes away, as on Ctrl-C: after tidying up; where nobody says otherwise.

    Yields
    ------
    list of int
        The signals that have come.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise _Stopped(number)

    def lost(unraisable: Any) -> None:
        """Say again what Python has dropped, for it came while an object was being deleted."""
        if isinstance(unraisable.exc_value, _Stopped):
            again = threading.Timer(0.01, _thread.interrupt_main, [unraisable.exc_value.number])
            again.daemon = True
            again.start()
        else:
            told(unraisable)

    signals = [
        number for name in ("SIGTERM", "SIGHUP", "SIGINT") if (number := getattr(signal, name, None)) is not None
    ]
    before = {number: signal.getsignal(number) for number in signals}
    usual = {signal.SIGINT: signal.default_int_handler}
    free = [number for number in signals if before[number] is usual.get(number, signal.SIG_DFL)]
    if threading.current_thread() is not threading.main_thread():  # which alone may
        free = []
    for number in free:
        signal.signal(number, stop)
    told, sys.unraisablehook = sys.unraisablehook, lost
    try:
        yield received
    finally:
        sys.unraisablehook = told
        for number in free:
            signal.signal(number, before[number])


def _show_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the version, and what measures distances."""
    if not wanted or ctx.resilient_parsing:
        return
    try:
        core = chosen_core()
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"rwtool, version {__version__} ({core} core)")
    ctx.exit()


@click.group(
    cls=_Group, commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it and exit."
)
def main() -> None:
    """Region-wise maps, losses, training and evaluation for biomedical image segmentation.

    Exit codes: 0 all is well, 1 some cases failed, 2 the command was used wrongly, 130 interrupted by Ctrl-C, 143 by
    SIGTERM.
    """

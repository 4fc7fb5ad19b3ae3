"""The program ``rwtool``, and ``python -m rwtool``."""

import signal
import sys


def main() -> None:
    """Run the command line; it can be interrupted from its first import to its end."""
    try:
        from rwtool.cli import main as command

        command(prog_name="rwtool")
    except KeyboardInterrupt as interrupt:  # before a command is at work, or after; it says what it has done itself
        print("interrupted", file=sys.stderr)
        raise SystemExit(128 + getattr(interrupt, "number", signal.SIGINT)) from None
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of what is torn down


if __name__ == "__main__":
    main()

"""The program ``rwtool``, and ``python -m rwtool``."""

import sys


def main() -> None:
    """Run the command line; it can be interrupted from its first import on."""
    try:
        from rwtool.cli import main as command
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    command(prog_name="rwtool")


if __name__ == "__main__":
    main()

"""``python -m rwtool``."""

from rwtool.cli import main

main(prog_name="rwtool")

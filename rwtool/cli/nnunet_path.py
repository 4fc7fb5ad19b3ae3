"""``rwtool nnunet-path``."""

from __future__ import annotations

import click

from rwtool.integrations.nnunet.names import FORM, trainer_folder, trainer_names


@click.command("nnunet-path", short_help="Tell nnU-Net where the region-wise trainers are.")
@click.option("--list", "names", is_flag=True, help="Print the names of the trainers, one a line.")
def nnunet_path(names: bool) -> None:
    """Print the folder that nnU-Net v2 is to look for trainers in.

    \b
    Examples:
      export nnUNet_extTrainer=$(rwtool nnunet-path)
      rwtool nnunet-path --list
    """  # noqa: D301
    if not names:
        click.echo(trainer_folder())
        return
    for name in trainer_names():
        click.echo(name)
    click.echo(f"\nand any of the form {FORM}; see rwtool help nnunet", err=True)

from dataclasses import dataclass
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from rwtool.cli import main, options


@dataclass(frozen=True)
class Settings:
    loss: Literal["rrw", "dice"] = "rrw"
    epochs: int = 7
    augment: bool = True
    depth: int | None = None


@click.command()
@options.of_record(Settings, "loss", "What is minimised.")
@options.of_record(Settings, "epochs", "How long.", type=int)
@options.of_record(Settings, "augment", "Warp.")
@options.of_record(Settings, "depth", "Stages.  [default: by the patch]", type=int)
@click.option("--overwrite", is_flag=True)
@click.option("--spacing", "spacing_mm", nargs=3, type=float, metavar="Z Y X")
@click.option("--classes")
@click.option("--map", "map_values")
@click.option("--region", "regions")
@click.option("--name")
@click.argument("labels")
def command(**given):
    print(given)


def test_an_option_of_a_record_shows_its_default_and_leaves_it_to_the_record():
    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "--loss [rrw|dice] What is minimised. [default: rrw]" in text
    assert "How long. [default: 7]" in text
    assert "--augment / --no-augment Warp. [default: on]" in text
    assert "Stages. [default: by the patch]" in text
    given = CliRunner().invoke(command, ["x"]).output
    assert "'loss': None, 'epochs': None, 'augment': None, 'depth': None" in given


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("give overwrite=True to make them anew", "give --overwrite to make them anew"),
        ("or augment=False.", "or --no-augment."),
        ("give spacing_mm=(z, y, x) in mm", "give --spacing Z Y X in mm"),
        ("give spacing_mm=(5, 1.5, 1) in mm", "give --spacing 5 1.5 1 in mm"),
        ("name them with classes=(0, 1, ...)", "name them with --classes 0,1,..."),
        ("spacing_mm= is for files without one", "--spacing is for files without one"),
        ("try epochs=3, or loss='dice'", "try --epochs 3, or --loss dice"),
        ("map_values={255: 1} maps it", "--map 255=1 maps it"),
        ("such as regions={core: (2, 3)}", "such as --region core=2,3"),
        ("name='{cas}': expected {case}", "--name {cas}: expected {case}"),
        ("give classes={'case': 'p', 'value': 'v'}", "give --classes case=p,value=v"),
        ("other=5 stays, as does x.epochs=3 and epochs==3", "other=5 stays, as does x.epochs=3 and epochs==3"),
        ("choose another labels=", "choose another LABELS"),
    ],
)
def test_the_command_line_speaks_of_options(said, heard):
    assert options.for_shell(said, command) == heard


def test_an_error_of_the_library_is_put_in_the_words_of_its_command(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    result = CliRunner().invoke(main, ["maps", str(tmp_path), str(tmp_path / "maps")])
    assert result.exit_code == 2
    assert "give --spacing Z Y X" in result.output


@pytest.mark.parametrize("command", main.commands.values(), ids=lambda value: value.name)
def test_every_option_has_help(command):
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help


def test_an_option_that_two_commands_share_means_the_same():
    seen = {"--format": None}  # of files in maps, of what is printed elsewhere
    for name, one in main.commands.items():
        for parameter in one.params:
            if isinstance(parameter, click.Option):
                for spelling in parameter.opts:
                    first = seen.setdefault(spelling, (name, parameter))
                    assert first is None or parameter.name == first[1].name, f"{spelling} in {name} and in {first[0]}"


def test_the_list_of_commands_ends_no_line_in_dots():
    assert "..." not in CliRunner().invoke(main, ["--help"]).output.split("Commands:")[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", [3]),
        ("0,2,5", [0, 2, 5]),
        ("0:4", [0, 1, 2, 3]),
        (" 5, 0:2 ,9:10", [5, 0, 1, 9]),
        ("1,0:2", "each seed stands once; found 1 twice in '1,0:2'"),
        ("3:3", "it is different numbers with commas, such as 0,1,2, and 0:50 for 0 to 49; found '3:3'"),
        ("5:3", "found '5:3'"),
        ("0:200000", "found '0:200000'"),
        ("", "found ''"),
        ("1,", "found '1,'"),
        ("-1", "found '-1'"),
        (":5", "found ':5'"),
    ],
)
def test_seeds_are_numbers_and_ranges(text, expected):
    context, parameter = click.Context(command), click.Option(["--seeds"])
    if isinstance(expected, str):
        with pytest.raises(click.BadParameter) as caught:
            options.parse_seeds(context, parameter, text)
        assert caught.value.message.endswith(expected)
    else:
        assert options.parse_seeds(context, parameter, text) == tuple(expected)
    assert options.parse_seeds(context, parameter, None) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GB", 2_000_000_000),
        ("500 mb", 500_000_000),
        ("1.5GiB", 3 << 29),
        ("64k", 64_000),
        ("1T", 10**12),
        ("12", 12),
        ("0", 0),
        ("7 B", 7),
    ],
)
def test_sizes_have_units(text, expected):
    assert options.parse_size(None, None, text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "2 apples", "1e9", "2.GB", "1GBB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(click.BadParameter, match=r"it is a size such as 2GB, 500MB or 1\.5GiB; found"):
        options.parse_size(None, None, text)


@pytest.mark.parametrize(("text", "expected"), [("last", "last"), ("best", "best"), ("7", 7)])
def test_a_checkpoint_is_last_best_or_an_epoch(text, expected):
    assert options.parse_checkpoint(None, None, text) == expected


@pytest.mark.parametrize("text", ["first", "0", "-1", "1.5", ""])
def test_what_is_no_checkpoint_is_refused(text):
    with pytest.raises(click.BadParameter, match="it is last, best or the number of an epoch; found"):
        options.parse_checkpoint(None, None, text)


def test_a_shard_is_told_of_in_the_words_of_the_command(tmp_path):
    result = CliRunner().invoke(main, ["maps", str(tmp_path), str(tmp_path), "--shard", "0/8"])
    assert result.exit_code == 2
    assert " ".join(result.output.split()).endswith(
        "Error: --shard 0/8: expected I/N with I from 1 to N, such as --shard 2/8, or --shard slurm in a job array; "
        "add 1 to an index that counts from 0"
    )

import dataclasses
import re

import click
import pytest

from rwtool.cli.train import train
from rwtool.errors import UsageError
from rwtool.network.config import TrainConfig, read_config, refuse_changes

FULL = TrainConfig(
    loss="boundary",
    mixed_with="dice",
    mix="gradual",
    schedule="authors",
    epochs=7,
    batch_size=4,
    lr=1e-5,
    patch=(56, 40),
    features=8,
    depth=3,
    norm="batch",
    deep_supervision=False,
    augment=False,
    flip="x",
    amp="off",
    compile=True,
    device="cuda:1",
    seed=3,
    val=0.25,
    split_seed=9,
    subject='(sub-\\d+)"é\U0001fac0',
    normalize="ct",
    target_spacing=(1.5, 0.75),
    val_every=2,
)
DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}


@pytest.fixture
def read(tmp_path):
    def write_and_read(text):
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return read_config(path)

    return write_and_read


# --- what a configuration may be ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"loss": "mse"},
            "--loss is one of rrw, boundary, ac, hd, dice, focal, ce, wce-rrw; found 'mse'",
        ),
        ({"loss": None}, "--loss is one of rrw, boundary, ac, hd, dice, focal, ce, wce-rrw; found None"),
        ({"mixed_with": "focal"}, "--with is one of dice, ce; found 'focal'"),
        ({"mixed_with": "ce", "mix": "half"}, "--mix is one of equal, gradual; found 'half'"),
        ({"norm": "layer"}, "--norm is one of instance, batch; found 'layer'"),
        ({"normalize": "minmax"}, "--normalize is one of zscore, ct, none; found 'minmax'"),
        ({"amp": "fp8"}, "--amp is one of auto, bf16, fp16, off; found 'fp8'"),
        ({"flip": "z"}, "--flip is one of both, y, x, none; found 'z'"),
        ({"epochs": 0}, "--epochs is at least 1; found 0"),
        ({"batch_size": 0}, "--batch-size is at least 1; found 0"),
        ({"features": 0}, "--features is at least 1; found 0"),
        ({"val_every": 0}, "--val-every is at least 1; found 0"),
        ({"depth": 1}, "--depth is at least 2; found 1"),
        ({"seed": -1}, "--seed is at least 0; found -1"),
        ({"split_seed": -1}, "--split-seed is at least 0; found -1"),
        ({"lr": 0}, "--lr is a positive number; found 0"),
        ({"lr": float("nan")}, "--lr is a positive number; found nan"),
        ({"lr": float("inf")}, "--lr is a positive number; found inf"),
        ({"val": 1.0}, "--val is a share of the subjects, at least 0 and less than 1; found 1"),
        ({"val": -0.1}, "--val is a share of the subjects, at least 0 and less than 1; found -0.1"),
        ({"patch": (56,)}, "--patch is two positive numbers, Y X; found (56,)"),
        ({"patch": (56, 0)}, "--patch is two positive numbers, Y X; found (56, 0)"),
        ({"target_spacing": (1.0, float("nan"))}, "--target-spacing is two positive numbers, Y X; found (1.0, nan)"),
        ({"target_spacing": (float("inf"), 1.0)}, "--target-spacing is two positive numbers, Y X; found (inf, 1.0)"),
        (
            {"loss": "ce", "mixed_with": "dice"},
            "--with mixes a map loss (rrw, boundary, ac, hd, wce-rrw) with Dice or cross entropy; found --loss ce "
            "--with dice",
        ),
        ({"mix": "gradual"}, "--mix and --schedule belong to a mixture; add --with dice or --with ce"),
        ({"schedule": "authors"}, "--mix and --schedule belong to a mixture; add --with dice or --with ce"),
        ({"mixed_with": "ce", "schedule": "authors"}, "--schedule belongs to --mix gradual; add that"),
        ({"ac_lambda": 1.0}, "--ac-lambda is a number of 0 or more and belongs to --loss ac; found 1"),
        (
            {"loss": "ac", "ac_lambda": -0.5},
            "--ac-lambda is a number of 0 or more and belongs to --loss ac; found -0.5",
        ),
        (
            {"loss": "ac", "ac_lambda": float("nan")},
            "--ac-lambda is a number of 0 or more and belongs to --loss ac; found nan",
        ),
    ],
)
def test_a_wrong_setting_is_named_by_its_option(settings, message):
    with pytest.raises(UsageError) as caught:
        TrainConfig(**settings)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "settings",
    [
        {"val": 0},
        {"depth": 2},
        {"seed": 0, "split_seed": 0, "epochs": 1, "batch_size": 1, "features": 1, "val_every": 1},
        {"loss": "ac", "ac_lambda": 0},
        {"loss": "wce-rrw", "mixed_with": "ce"},
        {"loss": "hd", "mixed_with": "dice", "mix": "gradual"},
    ],
)
def test_the_least_of_each_setting_is_allowed(settings):
    config = TrainConfig(**settings)
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "kind", "name"),
    [
        ({}, "rrw", "rrw"),
        ({"loss": "wce-rrw"}, "rrw", "wce-rrw"),
        ({"loss": "ac"}, "ac", "ac"),
        ({"loss": "hd", "mixed_with": "ce"}, "hd", "hd-ce-equal"),
        ({"loss": "boundary", "mixed_with": "dice", "mix": "gradual"}, "boundary", "boundary-dice-gradual"),
        ({"loss": "dice"}, None, "dice"),
        ({"loss": "focal"}, None, "focal"),
        ({"loss": "ce"}, None, "ce"),
    ],
)
def test_a_loss_names_its_map_and_its_folder(settings, kind, name):
    config = TrainConfig(**settings)
    assert (config.map_kind, config.name) == (kind, name)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.epochs = 8  # type: ignore[misc]


def test_as_dict_is_plain_and_makes_the_same_configuration():
    content = FULL.as_dict()
    assert content["patch"] == [56, 40]
    assert {type(value) for value in content.values()} <= {str, int, float, bool, list, type(None)}
    assert TrainConfig(**content) == FULL
    assert TrainConfig(**content).patch == (56, 40)


# --- the options of the command ---


def test_every_setting_is_an_option_of_the_same_name_and_choices():
    options = {option.name: option for option in train.params if isinstance(option, click.Option)}
    assert set(DEFAULTS) <= set(options)
    for name in DEFAULTS:
        (flag, *_) = options[name].opts
        assert flag == ("--with" if name == "mixed_with" else f"--{name.replace('_', '-')}")
        if isinstance(options[name].type, click.Choice):
            with pytest.raises(UsageError) as caught:
                TrainConfig(**{name: "?"})
            assert str(caught.value) == f"{flag} is one of {', '.join(options[name].type.choices)}; found '?'"


def test_the_defaults_in_the_help_are_those_of_the_configuration():
    found = {}
    for option in train.params:
        if option.name in DEFAULTS and (stated := re.search(r"\[default: ([^],]+)", option.help)):
            found[option.name] = stated[1]
    flags = {name: "on" if value else "off" for name, value in DEFAULTS.items() if isinstance(value, bool)}
    plain = {name: str(value) for name, value in DEFAULTS.items() if value is not None} | flags
    assert {name: found.get(name) for name in plain} == plain


# --- TOML ---


@pytest.mark.parametrize("config", [FULL, TrainConfig(), TrainConfig(loss="ac", ac_lambda=0.5, lr=1e22)])
def test_a_configuration_survives_toml(read, config):
    assert TrainConfig(**read(config.to_toml())) == config


def test_toml_has_the_names_of_the_options_and_leaves_out_what_has_no_value():
    lines = TrainConfig(mixed_with="ce", patch=(8, 16), lr=0.5).to_toml().splitlines()
    assert {'loss = "rrw"', 'with = "ce"', "patch = [8, 16]", "lr = 0.5", "augment = true"} <= set(lines)
    names = {line.split(" = ")[0] for line in lines}
    assert names == {*DEFAULTS, "with"} - {
        "mixed_with",
        "ac_lambda",
        "batch_size",
        "depth",
        "subject",
        "target_spacing",
    }


def test_a_file_may_name_a_few_settings_with_hyphens_or_underscores(read):
    lines = [
        'with = "dice"',
        "batch-size = 4",
        "val_every = 2",
        "lr = 1",
        "patch = [8, 16]",
        "target_spacing = [1, 0.5]",
    ]
    assert read("\n".join([*lines, "augment = false"])) == {
        "mixed_with": "dice", "batch_size": 4, "val_every": 2, "lr": 1, "patch": (8, 16), "target_spacing": (1, 0.5),
        "augment": False,
    }  # fmt: skip
    assert read("") == {}


def test_an_unknown_key_is_refused_with_the_known_ones(read, tmp_path):
    with pytest.raises(UsageError) as caught:
        read("epoch = 4\n")
    options = sorted({*DEFAULTS, "with"} - {"mixed_with"})
    known = ", ".join(sorted(name.replace("_", "-") for name in options))
    assert str(caught.value) == f"{tmp_path / 'run.toml'}: 'epoch' is no setting; the settings are {known}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('epochs = "4"', "epochs = '4' is not of the type int"),
        ("epochs = 4.0", "epochs = 4.0 is not of the type int"),
        ("epochs = true", "epochs = True is not of the type int"),
        ("batch-size = [4]", "batch-size = [4] is not of the type int"),
        ('lr = "1e-3"', "lr = '1e-3' is not of the type float"),
        ("lr = false", "lr = False is not of the type float"),
        ("augment = 1", "augment = 1 is not of the type bool"),
        ('compile = "on"', "compile = 'on' is not of the type bool"),
        ("subject = 3", "subject = 3 is not of the type str"),
        ("patch = 56", "patch = 56 is not of the type tuple[int, int]"),
        ("patch = [56.5, 40]", "patch = [56.5, 40] is not of the type tuple[int, int]"),
        ("patch = [true, 40]", "patch = [True, 40] is not of the type tuple[int, int]"),
        ('target_spacing = ["1", "1"]', "target_spacing = ['1', '1'] is not of the type tuple[float, float]"),
        ("loss = 3", "loss = 3 is not one of rrw, boundary, ac, hd, dice, focal, ce, wce-rrw"),
        ("with = true", "with = True is not one of dice, ce"),
        ("norm = [1]", "norm = [1] is not one of instance, batch"),
        ("[epochs]\nn = 4", "epochs = {'n': 4} is not of the type int"),
        ("batch-size = 4\nbatch_size = 5", "'batch_size' is set twice"),
        ("batch_size = 4\nbatch-size = 4", "'batch-size' is set twice"),
        ('mixed_with = "ce"\nwith = "dice"', "'with' is set twice"),
    ],
)
def test_a_value_of_another_type_is_refused(read, tmp_path, text, message):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert str(caught.value) == f"{tmp_path / 'run.toml'}: {message}"


def test_a_file_that_is_no_toml_is_named(read, tmp_path):
    with pytest.raises(UsageError, match=r"run\.toml: cannot be read as TOML: "):
        read("epochs: 4")
    (tmp_path / "latin.toml").write_bytes('subject = "é"'.encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin\.toml: cannot be read as TOML: "):
        read_config(tmp_path / "latin.toml")
    with pytest.raises(UsageError, match=r"gone\.toml: cannot be read as TOML: "):
        read_config(tmp_path / "gone.toml")


# --- going on with a run ---


def test_every_changed_setting_is_named():
    with pytest.raises(UsageError) as caught:
        refuse_changes(FULL, {"epochs": 7, "lr": 0.1, "mixed_with": "ce", "target_spacing": None, "amp": "bf16"})
    assert str(caught.value) == (
        "--resume goes on with the settings of the run, and these differ: --lr was 1e-05, now 0.1; --with was dice, "
        "now ce; --spacing was (1.5, 0.75), now None; --amp was off, now bf16; leave them out, or start another RUN"
    )


def test_what_is_the_same_or_only_a_place_may_be_given_again():
    refuse_changes(FULL, {})
    refuse_changes(FULL, dataclasses.asdict(FULL))
    refuse_changes(FULL, {"device": "cpu"})
    refuse_changes(FULL, {"amp": "auto"})


def test_a_patch_may_be_given_again_as_it_was_before_it_was_rounded():
    run = dataclasses.replace(FULL, patch=(56, 40), depth=4)  # a stride of 8
    refuse_changes(run, {"patch": (50, 36)})
    refuse_changes(run, {"patch": (49, 33)})
    for patch in ((48, 36), (50, 32), (57, 40), (56, 41)):
        with pytest.raises(UsageError, match=re.escape(f"--patch was (56, 40), now {patch}; leave")):
            refuse_changes(run, {"patch": patch})

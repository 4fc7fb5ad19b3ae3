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
    steps_per_epoch=250,
    batch_size=4,
    lr=1e-5,
    lr_schedule="cosine",
    ema=0.99,
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
    validate_hd=True,
    checkpoint_every=10,
)
LOSSES = "rrw, boundary, ac, hd, skeleton, matrix, dice, focal, ce, wce-rrw, generalized-surface, boundary-dou"
PIXELS = TrainConfig(pixels=(256, 192), ema=0.5, lr_schedule="constant")
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
        ({"loss": "mse"}, f"loss='mse' is not one of {LOSSES}"),
        ({"loss": None}, f"loss=None is not one of {LOSSES}"),
        ({"mixed_with": "focal"}, "mixed_with='focal' is not one of dice, ce"),
        ({"mixed_with": "ce", "mix": "half"}, "mix='half' is not one of equal, gradual"),
        ({"norm": "layer"}, "norm='layer' is not one of instance, batch"),
        ({"normalize": "minmax"}, "normalize='minmax' is not one of zscore, ct, none"),
        ({"amp": "fp8"}, "amp='fp8' is not one of auto, bf16, fp16, off"),
        ({"flip": "z"}, "flip='z' is not one of both, y, x, none"),
        ({"epochs": 0}, "epochs=0 is not at least 1"),
        ({"batch_size": 0}, "batch_size=0 is not at least 1"),
        ({"features": 0}, "features=0 is not at least 1"),
        ({"features": 1 << 40}, "features=1099511627776 is not at most 65536"),
        ({"val_every": 0}, "val_every=0 is not at least 1"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0 is not at least 1"),
        ({"steps_per_epoch": 1 << 20}, "steps_per_epoch=1048576 is not at most 100000"),
        ({"checkpoint_every": 0}, "checkpoint_every=0 is not at least 1"),
        ({"ema": 1}, "ema=1 is not a number between 0 and 1, such as 0.99"),
        ({"ema": float("nan")}, "ema=nan is not a number between 0 and 1, such as 0.99"),
        ({"lr_schedule": "step"}, "lr_schedule='step' is not one of poly, cosine, constant"),
        ({"pixels": (256,)}, "pixels=(256,) is not two positive numbers, (y, x)"),
        (
            {"pixels": (256, 256), "target_spacing": (1, 1)},
            "pixels= and target_spacing= both say what slices are resampled to; give one of them",
        ),
        ({"depth": 1}, "depth=1 is not at least 2"),
        ({"depth": 1 << 31}, "depth=2147483648 is not at most 16"),
        ({"seed": -1}, "seed=-1 is not at least 0"),
        ({"seed": 1 << 64}, "seed=18446744073709551616 is not at most 9223372036854775807"),
        ({"split_seed": -1}, "split_seed=-1 is not at least 0"),
        ({"lr": 0}, "lr=0 is not a positive number"),
        ({"lr": float("nan")}, "lr=nan is not a positive number"),
        ({"lr": float("inf")}, "lr=inf is not a positive number"),
        ({"val": 1.0}, "val=1 is not a share of the subjects, at least 0 and less than 1"),
        ({"val": -0.1}, "val=-0.1 is not a share of the subjects, at least 0 and less than 1"),
        ({"patch": (56,)}, "patch=(56,) is not two positive numbers, (y, x)"),
        ({"patch": (56, 0)}, "patch=(56, 0) is not two positive numbers, (y, x)"),
        ({"target_spacing": (1.0, float("nan"))}, "target_spacing=(1.0, nan) is not two positive numbers, (y, x)"),
        ({"target_spacing": (float("inf"), 1.0)}, "target_spacing=(inf, 1.0) is not two positive numbers, (y, x)"),
        (
            {"loss": "ce", "mixed_with": "dice"},
            "mixed_with=dice mixes a map loss (rrw, boundary, ac, hd, skeleton, matrix, wce-rrw, generalized-surface) "
            "with Dice or cross entropy; found loss=ce",
        ),
        ({"mix": "gradual"}, "mix=gradual belongs to a mixture; give mixed_with=dice or mixed_with=ce too"),
        ({"schedule": "authors"}, "schedule=authors belongs to a mixture; give mixed_with=dice or mixed_with=ce too"),
        ({"mixed_with": "ce", "schedule": "authors"}, "schedule=authors belongs to mix=gradual; give that too"),
        ({"ac_lambda": 1.0}, "ac_lambda=1 belongs to loss=ac; found loss=rrw"),
        ({"loss": "ac", "ac_lambda": -0.5}, "ac_lambda=-0.5 is not a number of 0 or more"),
        ({"loss": "ac", "ac_lambda": float("nan")}, "ac_lambda=nan is not a number of 0 or more"),
        ({"patch": (8, 1 << 17)}, "patch=(8, 131072) is larger than 65536 pixels along an axis"),
        ({"subject": "caf\udce9"}, "subject='caf\\udce9' is no UTF-8 text"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(settings, message):
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
        ({"loss": "skeleton", "mixed_with": "dice"}, "skeleton", "skeleton-dice-equal"),
        ({"loss": "matrix"}, "matrix", "matrix"),
        ({"loss": "generalized-surface", "mixed_with": "dice"}, "boundary", "generalized-surface-dice-equal"),
        ({"loss": "boundary-dou"}, None, "boundary-dou"),
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
            assert str(caught.value) == f"{name}='?' is not one of {', '.join(options[name].type.choices)}"


def test_the_defaults_in_the_help_are_those_of_the_configuration():
    found = {}
    for option in train.params:
        if option.name in DEFAULTS and (stated := re.search(r"\[default: ([^],]+)", option.help)):
            found[option.name] = stated[1]
    flags = {name: "on" if value else "off" for name, value in DEFAULTS.items() if isinstance(value, bool)}
    plain = {name: str(value) for name, value in DEFAULTS.items() if value is not None} | flags
    assert {name: found.get(name) for name in plain} == plain


# --- TOML ---


@pytest.mark.parametrize("config", [FULL, TrainConfig(), TrainConfig(loss="ac", ac_lambda=0.5, lr=1e22), PIXELS])
def test_a_configuration_survives_toml(read, config):
    assert TrainConfig(**read(config.to_toml())) == config


def test_toml_has_the_names_of_the_settings_and_leaves_out_what_has_no_value(read):
    text = TrainConfig(mixed_with="ce", patch=(8, 16), lr=0.5).to_toml()
    assert {"format = 1", 'loss = "rrw"', 'with = "ce"', "lr = 0.5", "augment = true"} <= set(text.splitlines())
    left_out = {"ac_lambda", "batch_size", "depth", "subject", "target_spacing", "pixels", "ema", "steps_per_epoch"}
    left_out |= {"checkpoint_every"}
    assert set(read(text)) == set(DEFAULTS) - left_out


def test_a_file_may_name_a_few_settings_with_hyphens_or_underscores(read):
    lines = [
        'with = "dice"',
        "batch-size = 4",
        "val_every = 2",
        "lr = 1",
        "patch = [8, 16]",
        "target-spacing = [1, 0.5]",
    ]
    assert read("\n".join([*lines, "augment = false"])) == {
        "mixed_with": "dice", "batch_size": 4, "val_every": 2, "lr": 1, "patch": (8, 16),
        "target_spacing": (1, 0.5), "augment": False,
    }  # fmt: skip
    assert read("") == {}


def test_an_unknown_key_is_refused_with_the_known_ones(read, tmp_path):
    with pytest.raises(UsageError) as caught:
        read("epoch = 4\n")
    options = sorted({*DEFAULTS, "with"} - {"mixed_with"})
    known = ", ".join(options)
    assert str(caught.value) == f"{tmp_path / 'run.toml'}: 'epoch' is no setting; the settings are {known}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('epochs = "4"', "$.epochs: expected int, found '4'"),
        ("epochs = 4.0", "$.epochs: expected int, found 4.0"),
        ("epochs = true", "$.epochs: expected int, found True"),
        ("batch-size = [4]", "$.batch_size: expected int | null, found [4]"),
        ('lr = "1e-3"', "$.lr: expected float, found '1e-3'"),
        ("lr = false", "$.lr: expected float, found False"),
        ("augment = 1", "$.augment: expected bool, found 1"),
        ('compile = "on"', "$.compile: expected bool, found 'on'"),
        ("subject = 3", "$.subject: expected str | null, found 3"),
        ("patch = 56", "$.patch: expected array | null, found 56"),
        ("patch = [56]", "$.patch: expected array of length 2, found [56]"),
        ("patch = [56.5, 40]", "$.patch[0]: expected int, found 56.5"),
        ("patch = [true, 40]", "$.patch[0]: expected int, found True"),
        ('target-spacing = ["1", "1"]', "$.target_spacing[0]: expected float, found '1'"),
        ("loss = 3", "$.loss: expected str, found 3"),
        ('loss = "mse"', f"$.loss: expected one of {', '.join(sorted(LOSSES.split(', ')))}, found 'mse'"),
        ("with = true", "$.with: expected str | null, found True"),
        ('with = "focal"', "$.with: expected one of ce, dice, found 'focal'"),
        ("norm = [1]", "$.norm: expected str, found [1]"),
        ("[epochs]\nn = 4", "$.epochs: expected int, found {'n': 4}"),
    ],
)
def test_a_value_of_another_type_is_refused(read, tmp_path, text, message):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert str(caught.value) == f"{tmp_path / 'run.toml'}: a setting is wrong: {message}; mend it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch-size = 4\nbatch_size = 5", "'batch_size' is set twice"),
        ("batch_size = 4\nbatch-size = 4", "'batch-size' is set twice"),
        ('mixed_with = "ce"\nwith = "dice"', "'with' is set twice"),
        ("format = 7", "its format is 7, this rwtool reads 1; write the settings anew"),
        ('format = "1"', "its format is '1', this rwtool reads 1; write the settings anew"),
    ],
)
def test_a_setting_twice_or_another_format_is_refused(read, tmp_path, text, message):
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
        "resume=True goes on with the settings of the run, and these differ: lr=0.1 (it was 1e-05), mixed_with=ce (it "
        "was dice), target_spacing=None (it was (1.5, 0.75)), amp=bf16 (it was off); leave them out, or start another "
        "RUN"
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
        with pytest.raises(UsageError, match=re.escape(f"patch={patch} (it was (56, 40)); leave")):
            refuse_changes(run, {"patch": patch})

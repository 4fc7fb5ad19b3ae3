import re

import pytest

from rwtool.errors import UsageError
from rwtool.integrations.nnunet.names import (
    TrainerSettings,
    is_like_trainer_name,
    parse_trainer_name,
    trainer_folder,
    trainer_names,
)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("nnUNetTrainerRRW", TrainerSettings("rrw")),
        ("nnUNetTrainerRRWStored", TrainerSettings("rrw", stored=True)),
        (
            "nnUNetTrainerBoundaryDiceGradual",
            TrainerSettings("boundary", mixed_with="dice", gradual=True),
        ),
        ("nnUNetTrainerHDCE", TrainerSettings("hd", mixed_with="ce")),
        ("nnUNetTrainerAC_50epochs", TrainerSettings("ac", epochs=50)),
        (
            "nnUNetTrainerRRWInnerVoxelSlicesStoredCEGradual_20epochs",
            TrainerSettings("rrw", "inner", "voxel", 2, True, "ce", True, 20),
        ),
        ("nnUNetTrainerBoundaryKervadecVoxel", TrainerSettings("boundary", "kervadec", "voxel")),
        ("nnUNetTrainerRRWReversed", TrainerSettings("rrw", profile="reversed")),
        (
            "nnUNetTrainerRRWExpInnerVoxelSlicesInstancesStoredDice_9epochs",
            TrainerSettings("rrw", "inner", "voxel", 2, True, "dice", False, 9, "exp", True),
        ),
        ("nnUNetTrainerACInstancesStored", TrainerSettings("ac", instances=True, stored=True)),
        ("nnUNetTrainerSkeletonVoxelDice", TrainerSettings("skeleton", units="voxel", mixed_with="dice")),
        ("nnUNetTrainerGeneralizedSurfaceCE", TrainerSettings("generalized-surface", mixed_with="ce")),
        ("nnUNetTrainerBoundaryDoU_5epochs", TrainerSettings("boundary-dou", epochs=5)),
    ],
)
def test_a_name_says_the_settings_and_settings_make_the_name(name, settings):
    assert parse_trainer_name(name) == settings
    assert settings.name == name


def test_the_listed_names_are_all_of_the_paper_and_each_has_its_own_settings():
    names = trainer_names()
    assert len(names) == 3 * 2 * 5 + 5  # three kinds made or stored, and ac: alone, or with Dice or CE in two ways
    assert len({parse_trainer_name(name) for name in names}) == len(names)
    assert all(re.fullmatch(r"nnUNetTrainer[A-Za-z]+", name) for name in names)  # no "__", which parts a folder's name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nnUNetTrainerRRWDicey", "is no trainer of rwtool"),
        ("nnUNetTrainerRRW__x", "is no trainer of rwtool"),
        ("nnUNetTrainerRRW_0epochs", "is no trainer of rwtool"),
        ("nnUNetTrainerRRWGradual", "name one of the two before it"),
        ("nnUNetTrainerACStored", "there is nothing to store"),
        ("nnUNetTrainerACVoxel", "units=voxel has no meaning for ac maps"),
        ("nnUNetTrainerHDInner", "convention=inner has no meaning for hd maps"),
        ("nnUNetTrainerHDReversed", "profile=reversed has no meaning for hd maps"),
        ("nnUNetTrainerGeneralizedSurfaceInstances", "instances=True has no meaning for generalized-surface maps"),
        ("nnUNetTrainerBoundaryDoUDice", "Dice and CE are mixed with a loss of maps; boundary-dou has none"),
        ("nnUNetTrainerBoundaryDoUStored", "there is nothing to store"),
        ("nnUNetTrainerBoundaryDoUVoxel", "units=voxel has no meaning for boundary-dou maps"),
        ("nnUNetTrainerRRWKervadec", "it has no meaning in mm"),
    ],
)
def test_what_is_no_name_is_refused_and_why(name, why):
    assert is_like_trainer_name(name)
    with pytest.raises(UsageError, match=re.escape(why)):
        parse_trainer_name(name)


@pytest.mark.parametrize("settings", [{"kind": "rww"}, {"kind": "ac", "dims": 2}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(UsageError):
        TrainerSettings(**settings)


def test_the_names_of_nnu_net_are_not_like_them():
    assert not is_like_trainer_name("nnUNetTrainer")
    assert not is_like_trainer_name("nnUNetTrainer_50epochs")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nnUNetTrainerRRWStored", "--kind rrw --format npy --layout packed --dtype float16"),
        ("nnUNetTrainerHDVoxelSlicesStored", "--kind hd --format npy --units voxel --dims 2"),
        ("nnUNetTrainerRRWExpStored", "--kind rrw --format npy --layout packed --dtype float16 --profile exp"),
        ("nnUNetTrainerRRWInstancesStored", "--kind rrw --format npy --layout packed --instances"),
        ("nnUNetTrainerSkeletonStored", "--kind skeleton --format npy --layout packed"),
        ("nnUNetTrainerGeneralizedSurfaceStored", "--kind boundary --format npy"),
    ],
)
def test_the_options_that_make_the_maps_of_a_trainer(name, options):
    assert parse_trainer_name(name).map_options == options


def test_the_folder_holds_one_file_that_only_imports_from_rwtool():
    (file,) = trainer_folder().glob("*.py")
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith('"')]
    assert lines == ["from rwtool.integrations.nnunet.trainer import __getattr__", '__all__ = ["__getattr__"]']

import pickle
import sys

import pytest

pytestmark = [pytest.mark.nnunet, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def find(nnunet):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    return recursive_find_trainer_class_by_name


def test_nnu_net_finds_trainers_by_their_names(find):
    found = find("nnUNetTrainerBoundaryDiceGradual_20epochs")
    assert found.__name__ == "nnUNetTrainerBoundaryDiceGradual_20epochs"
    assert (found.settings.kind, found.settings.mixed_with, found.settings.epochs) == ("boundary", "dice", 20)
    assert "rwnnunet" not in sys.modules  # nnU-Net removes what it has looked into
    assert find("nnUNetTrainerBoundaryDiceGradual_20epochs") is found
    assert pickle.loads(pickle.dumps(found)) is found


def test_its_own_trainers_are_its_own(find):
    assert find("nnUNetTrainer_5epochs").__module__.startswith("nnunetv2.")


@pytest.mark.filterwarnings("default")
def test_a_name_that_is_nearly_one_is_explained(find):
    with (
        pytest.warns(UserWarning, match="nnUNetTrainerRRWGradual is no trainer: Gradual goes over from Dice or CE"),
        pytest.raises(RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerRRWGradual"),
    ):
        find("nnUNetTrainerRRWGradual")

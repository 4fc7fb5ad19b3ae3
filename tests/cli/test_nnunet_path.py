from pathlib import Path

from commands import run

from rwtool.integrations.nnunet.names import trainer_folder, trainer_names


def test_it_prints_the_folder_that_nnu_net_is_told_of():
    assert run("nnunet-path").stdout == f"{trainer_folder()}\n"
    assert [path.name for path in Path(run("nnunet-path").stdout.strip()).glob("*.py")] == ["rwnnunet.py"]


def test_it_lists_the_names_of_the_trainers_and_how_others_are_formed():
    result = run("nnunet-path", "--list")
    assert result.stdout.splitlines() == trainer_names()
    assert (
        "nnUNetTrainer{RRW,Boundary,HD,AC,Skeleton,GeneralizedSurface,BoundaryDoU}[Reversed,Exp][Inner,Kervadec][Voxel]"
        in result.stderr
    )

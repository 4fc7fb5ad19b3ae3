import os
import signal
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

# Processes that tests start import the functions of tests by name; last, so that an installed rwtool is found first.
sys.path.append(str(Path(__file__).parents[1]))


@pytest.fixture
def test_data():
    """Folder of real volumes."""
    folder = os.environ.get("RWTOOL_TEST_DATA")
    if not folder:
        pytest.skip("RWTOOL_TEST_DATA does not name a folder of real volumes")
    return Path(folder)


@pytest.fixture
def write_nifti(tmp_path):
    """Write an array in file order as NIfTI, with the header fields that a test wants."""

    def write(array, affine=None, name="case.nii", *, kind=nib.Nifti1Header, endianness=None, **fields):
        array = np.asarray(array)
        header = kind(endianness=endianness)
        header.set_data_dtype(array.dtype)
        image_class = nib.Nifti2Image if kind is nib.Nifti2Header else nib.Nifti1Image
        image = image_class(array, np.eye(4) if affine is None else affine, header)
        image.header.set_xyzt_units("mm")
        path = tmp_path / name
        if not fields and endianness is None:
            nib.save(image, path)
            return path
        header = image.header
        for field, value in fields.items():
            header[field] = value
        header["vox_offset"] = 544 if kind is nib.Nifti2Header else 352
        stored = array.astype(array.dtype.newbyteorder(header.endianness))
        path.write_bytes(header.binaryblock + b"\0\0\0\0" + stored.tobytes(order="F"))
        return path

    return write


@pytest.fixture
def ctrl_c():
    """Ctrl-C is listened to, also where these tests were started with it ignored, as in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def undrawn():
    """Trainings draw no picture, which takes a while; tests/report/test_curves.py and one of the loop's do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rwtool.report.curves.can_draw", lambda: False)
        yield


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Six images of two discs, and their labels; no test may change them."""
    from cohorts import write_cohort

    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def quick(cohort, tmp_path_factory):
    """A short training on the cohort; no test may change its folder."""
    from cohorts import train

    return train(cohort, tmp_path_factory.mktemp("runs") / "quick")

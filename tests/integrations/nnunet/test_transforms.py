import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import rwtool

pytestmark = [pytest.mark.nnunet, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("batchgeneratorsv2", reason="nnU-Net is not installed")

import torch  # noqa: E402
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform  # noqa: E402
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms  # noqa: E402
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform  # noqa: E402
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform  # noqa: E402
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform  # noqa: E402

from rwtool.integrations.nnunet.transforms import (  # noqa: E402
    MakeMap,
    ZoomDistances,
    with_made_maps,
    with_stored_maps,
)
from rwtool.maps.parameters import MapParameters  # noqa: E402

SHAPE = (24, 40, 32)
SPACING = (1.0, 1.0, 1.0)


def balls(shape=SHAPE):
    """Labels of a ball within a ball, the middle of both that of the volume."""
    grid = np.indices(shape) - (np.reshape(shape, (-1, *[1] * len(shape))) - 1) / 2
    return (2 - np.searchsorted([4, 9], np.sqrt((grid**2).sum(axis=0)))).astype(np.int16)


def true_map(labels, kind, spacing=SPACING):
    """Map of labels in two or three dimensions, by the function of its kind."""
    function = getattr(rwtool, f"{kind}_map")
    if labels.ndim == 2:
        return function(labels[None], (1.0, *spacing), n_classes=3)[:, 0]
    return function(labels, spacing, n_classes=3)


def own_values(labels, spacing=SPACING):
    return np.take_along_axis(true_map(labels, "rrw", spacing), labels[None].astype(np.intp), axis=0)


def magnitudes(labels, kind, spacing=SPACING):
    return np.abs(own_values(labels, spacing) if kind == "rrw" else true_map(labels, kind, spacing))


def stored_sample(labels, kind, spacing=SPACING):
    """What the loader hands over: an image with the magnitudes behind it, and labels."""
    image = np.concatenate((labels[None].astype(np.float32), magnitudes(labels, kind, spacing)))
    return {"image": torch.from_numpy(image), "segmentation": torch.from_numpy(labels[None])}


def channels(kind):
    return 1 if kind == "rrw" else 3


def spatial(shape, **settings):
    """nnU-Net's own settings but for what a test wants."""
    chosen = {"p_rotation": 0, "p_scaling": 0, **settings}
    return SpatialTransform(
        shape,
        0,
        False,
        bg_style_seg_sampling=False,
        border_mode_seg="constant",
        padding_value_seg=-1,
        p_synchronize_scaling_across_axes=1,
        **chosen,
    )


def after(steps, kind, sample):
    """Labels and map that come out of nnU-Net's transforms, with a stored map."""
    result = with_stored_maps(ComposeTransforms(steps), MapParameters(kind), channels(kind))(**sample)
    assert result["image"].shape[0] == 1
    target = result["segmentation"]
    assert target.dtype == torch.float32
    return target[:1].numpy().astype(np.int16), target[1:].numpy()


@pytest.mark.parametrize("kind", ["rrw", "boundary", "hd"])
def test_without_augmentation_a_stored_map_is_the_map_of_the_labels(kind):
    labels = balls()
    found, values = after([GaussianNoiseTransform()], kind, stored_sample(labels, kind))
    np.testing.assert_array_equal(found[0], labels)
    np.testing.assert_array_equal(values, own_values(labels) if kind == "rrw" else true_map(labels, kind))


def test_components_bring_an_other_value_for_each_voxel():
    labels = balls()
    labels[0, 0, 0] = 1
    parameters = MapParameters("rrw", instances=True)
    both = rwtool.rrw_map(labels, SPACING, n_classes=3, instances=True, layout="packed")
    image = np.concatenate((labels[None].astype(np.float32), np.abs(both)))
    sample = {"image": torch.from_numpy(image), "segmentation": torch.from_numpy(labels[None])}
    stored = with_stored_maps(ComposeTransforms([]), parameters, 2)(**sample)["segmentation"].numpy()
    np.testing.assert_array_equal(stored[1:], both)
    sample = {"image": torch.zeros((1, *SHAPE)), "segmentation": torch.from_numpy(labels[None])}
    made = with_made_maps(ComposeTransforms([]), MakeMap(parameters, SPACING, 3, None))(**sample)
    np.testing.assert_array_equal(made["segmentation"].numpy()[1:], both)


@pytest.mark.parametrize("kind", ["rrw", "boundary", "hd"])
def test_mirrored_it_is_the_map_of_the_mirrored_labels(kind):
    torch.manual_seed(1)
    labels = balls()
    labels[:, :20] = 0  # so that a mirrored one is another
    found, values = after([MirrorTransform((0, 1, 2))], kind, stored_sample(labels, kind))
    assert not np.array_equal(found[0], labels)
    np.testing.assert_array_equal(values, own_values(found[0]) if kind == "rrw" else true_map(found[0], kind))


@pytest.mark.parametrize("kind", ["rrw", "boundary"])
@pytest.mark.parametrize("shape", [SHAPE, (40, 32)])
def test_turned_and_zoomed_it_is_the_map_of_the_warped_labels_within_a_voxel(kind, shape):
    # bilinear interpolation, and labels that move by whole voxels, leave less than a voxel of a distance; rrw divides
    # it by the largest one of the class
    labels, spacing = balls(shape), (1.0,) * len(shape)
    np.random.seed(3)  # noqa: NPY002  # nnU-Net draws from it
    steps = [spatial(shape, p_rotation=1, rotation=(-0.5, 0.5), p_scaling=1, scaling=(0.7, 1.4))]
    for _ in range(10):
        found, values = after(steps, kind, stored_sample(labels, kind, spacing))
        warped = found[0].clip(0)
        assert not np.array_equal(warped, labels)
        inside = warped > 0  # the background ends where the patch did
        distances = true_map(warped, "boundary", spacing)
        unit = 1.0
        if kind == "rrw":
            expected = own_values(warped, spacing)
            largest = np.array([-distances[k][warped == k].min() for k in range(3)])
            unit = largest[warped][inside]
        else:
            expected = distances
        assert (np.abs(values - expected)[:, inside] * unit).max() < 1


def test_distances_follow_the_zoom_and_their_powers_too():
    labels, factor = balls(), 1.25  # larger numbers make smaller objects
    for kind, power in (("boundary", 1), ("hd", 2)):
        values = {}
        for plain in (False, True):
            transform = spatial(SHAPE, p_scaling=1, scaling=(factor, factor))
            step = transform if plain else ZoomDistances(transform, power)
            sample = {
                "image": torch.zeros((1, *SHAPE)),
                "regression_target": torch.from_numpy(magnitudes(labels, kind)),
                "segmentation": torch.from_numpy(labels[None]),
            }
            values[plain] = step(**sample)["regression_target"]
        torch.testing.assert_close(values[False], values[True] / factor**power)


def test_the_zoom_of_slices_is_taken_where_volumes_are_turned_slice_by_slice():
    labels, factor = balls(), 0.8
    steps = [
        Convert3DTo2DTransform(),
        spatial(SHAPE[1:], p_scaling=1, scaling=(factor, factor)),
        Convert2DTo3DTransform(),
    ]
    found, values = after(steps, "boundary", stored_sample(labels, "boundary"))
    assert found.shape == (1, *SHAPE)
    assert values.shape == (3, *SHAPE)
    # the middle of the patch stays where it is: its distance to the outside is larger by the zoom
    middle = tuple(side // 2 for side in SHAPE)
    before = true_map(labels, "boundary")[(2, *middle)]
    assert values[(2, *middle)] == pytest.approx(before / factor, abs=0.5)


@pytest.mark.parametrize("kind", ["rrw", "boundary", "hd"])
@pytest.mark.parametrize("shape", [SHAPE, SHAPE[1:]])
def test_a_map_that_is_made_is_that_of_the_augmented_labels(kind, shape):
    np.random.seed(0)  # noqa: NPY002  # nnU-Net draws from it
    spacing = (2.0, 1.0, 0.5)[-len(shape) :]
    steps = [spatial(shape, p_rotation=1, rotation=(0.3, 0.3)), MirrorTransform((0,)), RemoveLabelTansform(-1, 0)]
    make = MakeMap(MapParameters(kind), spacing, 3, None)
    sample = {"image": torch.zeros((1, *shape)), "segmentation": torch.from_numpy(balls(shape)[None])}
    target = with_made_maps(ComposeTransforms(steps), make)(**sample)["segmentation"].numpy()
    labels = target[0].astype(np.int16)
    expected = own_values(labels, spacing) if kind == "rrw" else true_map(labels, kind, spacing)
    np.testing.assert_array_equal(target[1:], expected)


def test_each_level_of_deep_supervision_has_the_values_at_its_labels():
    labels = balls()
    steps = [DownsampleSegForDSTransform([[1, 1, 1], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]])]
    made = with_made_maps(ComposeTransforms(steps), MakeMap(MapParameters("boundary"), SPACING, 3, None))
    sample = {"image": torch.zeros((1, *SHAPE)), "segmentation": torch.from_numpy(labels[None])}
    levels = made(**sample)["segmentation"]
    whole = true_map(labels, "boundary")
    assert [tuple(level.shape) for level in levels] == [(4, 24, 40, 32), (4, 12, 20, 16), (4, 6, 10, 8)]
    for level, step in zip(levels, (1, 2, 4), strict=True):
        picked = (slice(None), *[slice(step // 2, None, step)] * 3)  # nearest-exact: the voxel at the middle
        np.testing.assert_array_equal(level[0], labels[picked[1:]])
        np.testing.assert_array_equal(level[1:], whole[picked])


def test_ignored_voxels_have_the_value_0_and_are_no_boundary():
    labels = np.array([[1, 1, 2, 0]], dtype=np.int16)
    sample = {"image": torch.zeros((1, 1, 4)), "segmentation": torch.from_numpy(labels[None])}
    target = with_made_maps(ComposeTransforms([]), MakeMap(MapParameters("rrw"), (1.0, 1.0), 2, 2))(**sample)
    # class 1 lies 3 and 2 voxels from the background, which lies 2 from class 1
    np.testing.assert_allclose(target["segmentation"][1], [[-1, -2 / 3, 0, -1]])


def test_transforms_can_be_sent_to_workers():
    steps = [spatial(SHAPE, p_scaling=1), DownsampleSegForDSTransform([[1, 1, 1]])]
    for pipeline in (
        with_stored_maps(ComposeTransforms(steps), MapParameters("hd"), 3),
        with_made_maps(ComposeTransforms(steps), MakeMap(MapParameters("rrw"), SPACING, 3, None)),
    ):
        again = pickle.loads(pickle.dumps(pipeline))
        assert [type(step) for step in again.transforms] == [type(step) for step in pipeline.transforms]


def test_the_zoom_is_left_alone_where_there_is_none():
    step = ZoomDistances(
        SimpleNamespace(get_parameters=lambda **_: {"affine": None}, apply=lambda data, **_: data), power=1.0
    )
    assert step(regression_target=torch.ones(3))["regression_target"].tolist() == [1, 1, 1]

"""Small volumes and grids."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rwtool.io.geometry import Geometry
from rwtool.io.volume import Volume

SPACED = np.diag([0.5, 0.9, 3.0, 1.0])
IGNORED = 9


def some_labels(shape=(4, 5, 6), dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 5, shape).astype(dtype)


def rotation(x, y, z):
    matrices = []
    for axis, angle in enumerate(np.radians([x, y, z])):
        matrix = np.eye(3)
        a, b = [i for i in range(3) if i != axis]
        matrix[a, a] = matrix[b, b] = np.cos(angle)
        matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
        matrices.append(matrix)
    return matrices[0] @ matrices[1] @ matrices[2]


def oblique(spacing=(0.5, 0.9, 3.0)):
    affine = np.eye(4)
    affine[:3, :3] = rotation(20, -35, 50) * spacing
    affine[:3, 3] = -12.5, 30.25, 7
    return affine


def volume_of(array_ijk, affine=SPACED, axes=(2, 1, 0)):
    geometry = Geometry(np.asarray(affine, dtype=float), array_ijk.shape, axes, array_ijk.shape)
    return Volume(geometry.to_array(array_ijk), geometry.spacing_mm, geometry)


@st.composite
def label_arrays(draw, ignore=False):
    """Label arrays of three classes: noise, with constant runs so that classes have an inside."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)))
    values = [0, 1, 2, IGNORED] if ignore else [0, 1, 2]
    noise = draw(arrays(np.uint8, shape, elements=st.sampled_from(values)))
    return np.repeat(noise, draw(st.integers(1, 2)), axis=draw(st.integers(0, 2)))

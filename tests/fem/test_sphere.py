import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

import ufl
from dolfinx import fem

from analogpde.fem.forms import integral
from analogpde.fem.sphere import create_sphere, icosphere


@pytest.mark.parametrize("level", [0, 1, 3])
def test_the_icosphere_is_closed_and_turns_outward(level):
    points, faces = icosphere(level)
    assert len(faces) == 20 * 4**level and len(points) == 10 * 4**level + 2
    assert np.allclose(np.linalg.norm(points, axis=1), 1)
    a, b, c = (points[faces[:, i]] for i in range(3))
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) > 0).all()
    directed = {(int(f[i]), int(f[i - 2])) for f in faces for i in range(3)}
    assert len(directed) == 3 * len(faces) and all((j, i) in directed for i, j in directed)
    assert np.isclose(points[:, 2].max(), 1)  # a corner at the pole


@pytest.mark.mpi
def test_area_converges_with_order_four(comm):
    # P2 geometry interpolates the sphere at the midpoints: the area is in error by O(h^4).
    errors = []
    for level in (1, 2):
        mesh = create_sphere(comm, level, radius=2.0)
        errors.append(abs(integral(comm, fem.Constant(mesh, 1.0) * ufl.dx(metadata={"quadrature_degree": 6}))
                          / (16 * np.pi) - 1))
    assert errors[1] < 1e-3
    assert np.log2(errors[0] / errors[1]) > 3.5


@pytest.mark.mpi
def test_the_cell_normal_points_outward_everywhere(comm):
    mesh = create_sphere(comm, 1, radius=3.0)
    x, n = ufl.SpatialCoordinate(mesh), ufl.CellNormal(mesh)
    inward = ufl.conditional(ufl.lt(ufl.dot(n, x), 0), 1.0, 0.0)
    assert integral(comm, inward * ufl.dx(metadata={"quadrature_degree": 4})) == 0
    # Divergence theorem: the flux of x is three volumes.
    flux = integral(comm, ufl.dot(n, x) * ufl.dx(metadata={"quadrature_degree": 6}))
    assert flux == pytest.approx(4 * np.pi * 27, rel=5e-3)

import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

from dolfinx import fem, mesh

from analogpde.fem import picture
from analogpde.fem.render import View, render
from analogpde.fem.sphere import create_sphere
from analogpde.fem.surface import Surface, extract

PNG = b"\x89PNG\r\n\x1a\n"


def function(domain):
    made = fem.Function(fem.functionspace(domain, ("Lagrange", 1)))
    made.interpolate(lambda x: x[0] + 2 * x[2])
    return made


def area(surface):
    a, b, c = (surface.corners[:, i] for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2


@pytest.mark.mpi
def test_the_surface_of_a_cube_is_gathered_once(comm):
    surface = extract(function(mesh.create_unit_cube(comm, 3, 3, 3)))
    assert (surface is None) == (comm.rank > 0)
    if surface is not None:
        assert len(surface.corners) == 6 * 9 * 2 and area(surface) == pytest.approx(6)
        assert np.allclose(surface.values, surface.corners[..., 0] + 2 * surface.corners[..., 2])


@pytest.mark.mpi
def test_a_cut_corner_leaves_the_area_as_it_was(comm):
    # Three outer squares of the octant go, three inner ones appear.
    surface = extract(function(mesh.create_unit_cube(comm, 4, 4, 4)), keep=lambda x: (x < 0.5).any(axis=1))
    if surface is not None:
        assert area(surface) == pytest.approx(6)


@pytest.mark.mpi
def test_curved_triangles_become_four(comm):
    surface = extract(function(create_sphere(comm, 1)))
    if surface is not None:
        assert len(surface.corners) == 80 * 4
        assert np.allclose(np.linalg.norm(surface.corners, axis=2), 1)


def test_the_nearer_triangle_hides_the_other():
    colours = lambda values: np.stack([values, 0 * values, 1 - values, 1 + 0 * values], axis=-1)  # noqa: E731
    square = np.array([[[0, -1, -1], [0, 1, -1], [0, 1, 1]], [[0, -1, -1], [0, 1, 1], [0, -1, 1]]], dtype=float)
    corners = np.concatenate([square, square + np.array([1.0, 0, 0])])
    surface = Surface(corners, np.repeat([[0.0], [1.0]], 2, axis=0) * np.ones(3))
    for azimuth, (red, blue) in ((0.0, (True, False)), (180.0, (False, True))):
        image = render(surface, colours, (0.0, 1.0), View(azimuth, 0.0), width=60)
        middle = image[image.shape[0] // 2, image.shape[1] // 2]
        assert (middle[0] > 0.3) == red and (middle[2] > 0.3) == blue and middle[3] == 1


@pytest.mark.mpi
def test_pictures_are_written(comm, shared_tmp_path):
    pytest.importorskip("matplotlib")
    picture.solid(shared_tmp_path / "solid.png", function(mesh.create_unit_cube(comm, 2, 2, 2)), title="t", label="T",
                  views=[("", View())], history=[picture.Curve([0, 1], [0, 1], "max")], history_labels=("t", "T"))
    picture.plane(shared_tmp_path / "plane.png", function(mesh.create_unit_square(comm, 4, 4)), title="t", label="u")
    picture.globes(shared_tmp_path / "globes.png", [(function(create_sphere(comm, 1)), "a", "b")], title="t")
    picture.lines(comm, shared_tmp_path / "lines.png", [picture.Curve([0, 1], [0, 1])], title="t", labels=("x", "y"))
    comm.barrier()
    for name in ("solid", "plane", "globes", "lines"):
        assert (shared_tmp_path / f"{name}.png").read_bytes().startswith(PNG)


@pytest.mark.mpi
def test_a_constant_field_has_a_picture(comm, shared_tmp_path):
    pytest.importorskip("matplotlib")
    flat = function(mesh.create_unit_square(comm, 2, 2))
    flat.x.array[:] = 3.0
    picture.plane(shared_tmp_path / "flat.png", flat, title="t", label="u")

import sys

import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

from analogpde.errors import InvalidInput
from analogpde.fem import latlon
from analogpde.fem.sphere import curved_icosphere, icosphere, locate, smallest_height


@pytest.fixture
def directions():
    random = np.random.default_rng(1).standard_normal((500, 3))
    points, _ = icosphere(2)  # corners, among them both poles: each in several triangles
    date_line = np.stack([-np.cos(t := np.linspace(-1.5, 1.5, 50)), 0 * t, np.sin(t)], axis=1)
    everything = np.vstack([random, points, date_line])
    return everything / np.linalg.norm(everything, axis=1)[:, None]


@pytest.mark.parametrize("level", [0, 1, 3])
def test_every_direction_is_in_its_triangle(level, directions):
    points, faces = icosphere(level)
    which, weights = locate(level, directions)
    assert weights.min() > -1e-12 and np.allclose(weights.sum(axis=1), 1)
    inside = np.einsum("pc,pcx->px", weights, points[faces[which]])
    assert np.allclose(inside / np.linalg.norm(inside, axis=1)[:, None], directions, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2])
def test_maps_converge_everywhere_with_the_order_of_the_elements(degree, directions):
    # Interpolation of degree p errs by O(h^(p+1)); poles and date line are among the directions. On level 3, h < 0.17:
    # h²/8 |D²| with |D²| < e (1 + 5), and h³/27 |D³| with |D³| < e (1 + 5^1.5) for degree 2.
    errors = []
    for level in (2, 3):
        nodes, weights = latlon.Sampler.at(level, degree, directions)
        points, _ = curved_icosphere(level)
        field = np.exp(points[:, 0]) * np.sin(2 * points[:, 1] + points[:, 2])
        exact = np.exp(directions[:, 0]) * np.sin(2 * directions[:, 1] + directions[:, 2])
        errors.append(np.abs((weights * field[nodes]).sum(axis=1) - exact).max())
    assert np.log2(errors[0] / errors[1]) > degree + 0.5
    assert errors[1] < {1: 6e-2, 2: 6e-3}[degree]


def test_curved_cells_are_met_exactly():
    # The coordinates themselves are functions of degree 2: their interpolant is the mesh, in the wanted direction.
    sampler = latlon.Sampler(2, 2, rows=30)
    points, _ = curved_icosphere(2)
    x, y, z = (sampler(points[:, axis]) for axis in range(3))
    assert np.allclose(np.arctan2(y, x), sampler.longitude, atol=1e-12)
    assert np.allclose(np.arctan2(z, np.hypot(x, y)), sampler.latitude[:, None], atol=1e-12)
    assert sampler.latitude[0] > 0 and x.shape == (30, 60)  # north at the top


def test_the_smallest_height():
    points, faces = icosphere(2)
    a, b, c = (points[faces[:, i]] for i in range(3))
    doubled = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    edges = [np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (c, a))]
    assert smallest_height(2) == pytest.approx(np.min([doubled / edge for edge in edges]))
    assert smallest_height(6) == pytest.approx(smallest_height(5) / 2)


def test_pictures_and_animation(tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    sampler = latlon.Sampler(1, 2, rows=20)
    points, _ = curved_icosphere(1)
    frames = []
    for k in range(3):
        panel = latlon.Panel(sampler(points[:, k]), "caption", "unit", contours=sampler(points[:, 2]))
        frames.append(tmp_path / f"{k}.png")
        latlon.draw(frames[-1], sampler, [panel], title="title", south=-90 + 90 * (k == 0), dpi=50)
    latlon.animate(tmp_path / "a.gif", frames[1:])
    with image.open(tmp_path / "a.gif") as movie:
        assert movie.n_frames == 2
    if latlon.ffmpeg() is not None:
        latlon.animate(tmp_path / "a.mp4", frames[1:])
        assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"  # ISO 14496-12: the first box tells the file's type


def test_an_animation_that_cannot_be_made_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(latlon.shutil, "which", lambda program: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InvalidInput, match="ffmpeg"):
        latlon.check_animation("mp4")
    latlon.check_animation("none")

import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

import ufl
from dolfinx import fem

from analogpde.fem import multistep
from analogpde.fem.forms import matrix
from analogpde.fem.shallow_water import UPWIND
from analogpde.fem.sphere import create_sphere, smallest_height

GRAVITY = np.concatenate([np.linspace(0, 3, 13), np.geomspace(4, 300, 12)])  # beyond, the ratios alone matter
RATIOS = (0.3, 0.5, 0.7, 0.9, 1.0, 1.1, 1.2)


def test_the_weights_are_of_second_order():
    # y(1) − y(0) = ∫ of the interpolant: moments 0 and 1 of the weights at times 0, −1, −2 and 1, 0, −1
    for weights, times in ((multistep.EXPLICIT, (0, -1, -2)), (multistep.IMPLICIT, (1, 0, -1))):
        assert sum(weights) == 1
        assert np.dot(weights, times) == 0.5


def test_no_wave_grows_up_to_the_limit_and_some_do_beyond():
    inside = multistep.scan(np.linspace(0, multistep.STABLE, 7), GRAVITY, RATIOS)
    # a double root next to the unit circle is found to the root of rounding at worst
    assert inside.max() < 1 + 1e-7
    beyond = multistep.scan([0.8, 1.0], GRAVITY, RATIOS)
    assert (beyond.max(axis=1) > 1.01).all()


@pytest.mark.parametrize("degree", [1, 2])
def test_the_upwinding_keeps_the_limit_and_half_as_much_again_would_not(degree):
    steps = np.linspace(0, multistep.STABLE, 12)
    assert max(multistep.upwinded(a, UPWIND, degree) for a in steps) < 1 + 1e-7
    assert multistep.upwinded(multistep.STABLE, 1.5 * UPWIND, degree) > 1.01


def test_crank_nicolson_with_adams_bashforth_is_not_stable():
    # The scan must be able to tell: AB2 grows for every advection and, with it, depths other than the reference.
    grows = [multistep.amplification(0.3, w, 0.9, explicit=(1.5, -0.5), implicit=(0.5, 0.5)) for w in GRAVITY]
    assert max(grows) > 1.05


@pytest.mark.parametrize(("degree", "mass", "advection", "diffusion"), [
    (1, [[2, 1], [1, 2]], [[-3, 3], [-3, 3]], [[1, -1], [-1, 1]]),
    (2, [[4, 2, -1], [2, 16, 2], [-1, 2, 4]], [[-3, 4, -1], [-4, 0, 4], [1, -4, 3]],
     [[7, -8, 1], [-8, 16, -8], [1, -8, 7]]),
])
def test_the_fastest_waves_on_the_line(degree, mass, advection, diffusion):
    scale = {1: (6, 6, 1), 2: (30, 6, 3)}[degree]  # element matrices of a cell of length 1
    M, C, K = (np.array(part) / number for part, number in zip((mass, advection, diffusion), scale, strict=True))
    fastest, stiffest = 0.0, 0.0
    for phase in np.linspace(0, 2 * np.pi, 721):
        bloch = np.vstack([np.eye(degree), np.exp(1j * phase) * np.eye(degree)[:1]])
        m, c, k = (bloch.conj().T @ part @ bloch for part in (M, C, K))
        fastest = max(fastest, np.abs(np.linalg.eigvals(np.linalg.solve(m, c))).max())
        stiffest = max(stiffest, np.abs(np.linalg.eigvals(np.linalg.solve(m, k))).max())
    assert fastest == pytest.approx(multistep.ADVECTION[degree], rel=1e-4)  # 721 phases: the peak within 1e-5
    assert np.sqrt(stiffest) == pytest.approx(multistep.DIFFUSION[degree], rel=1e-4)


@pytest.mark.parametrize("degree", [1, 2])
def test_waves_on_the_sphere_are_no_faster_than_on_the_line(degree):
    mesh = create_sphere(analogpde_world(), 1)
    space = fem.functionspace(mesh, ("Lagrange", degree))
    u, w, x = ufl.TrialFunction(space), ufl.TestFunction(space), ufl.SpatialCoordinate(mesh)
    turning = ufl.as_vector((-x[1], x[0], 0.0 * x[2]))  # one radian a second, speed 1 at the equator
    dx = ufl.dx(metadata={"quadrature_degree": 2 * degree + 2})
    M, C, K = (matrix(form * dx)[:, :] for form in (
        u * w, ufl.inner(u * turning, ufl.grad(w)), ufl.inner(ufl.grad(u), ufl.grad(w))))
    height = smallest_height(1)
    fastest = np.abs(np.linalg.eigvals(np.linalg.solve(M, C))).max()
    assert 0.4 < fastest * height / multistep.ADVECTION[degree] < 1  # the rule is safe, and not far off
    stiffest = np.sqrt(np.abs(np.linalg.eigvals(np.linalg.solve(M, K))).max())
    assert 0.4 < stiffest * height / multistep.DIFFUSION[degree] < 1.1


def analogpde_world():
    from mpi4py import MPI

    return MPI.COMM_WORLD


def test_the_default_step_keeps_its_distance_and_fits_the_time():
    dt = multistep.default_step(speed=40.0, size=2e5, degree=2, total=86400.0)
    assert 86400 / dt == pytest.approx(round(86400 / dt), abs=1e-9)
    number = dt * 40 / 2e5 * multistep.ADVECTION[2]
    assert 0.7 * multistep.STABLE < number <= 0.8 * multistep.STABLE

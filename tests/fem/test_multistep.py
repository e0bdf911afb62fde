import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

import basix
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


def bloch_waves(degree, phases):
    """Return (phases, 3, 3, dofs, dofs) the products of φ, ∂φ/∂x and ∂φ/∂y on equilateral triangles of height 1.

    Args:
        degree: 1 or 2.
        phases: (count, 2), of the Bloch waves from one vertex to the next along two edges.
    """
    points, weights = basix.make_quadrature(basix.CellType.triangle, 2 * degree)
    element = basix.create_element(basix.ElementFamily.P, basix.CellType.triangle, degree)
    values = element.tabulate(1, points)[..., 0]
    edges = np.array([[1, 0], [0.5, np.sqrt(0.75)]]).T / np.sqrt(0.75)
    a, b = np.exp(1j * np.transpose(phases))
    one, total = np.ones_like(a), 0
    # An upright triangle and its inverse, corners then edges: the kind of unknown and the wave's phase there
    for turned, nodes in ((1, [(0, one), (0, a), (0, b), (3, one), (2, one), (1, one)]),
                          (-1, [(0, a * b), (0, b), (0, a), (3, one), (2, a), (1, b)])):
        gradient = np.einsum("dx,dqn->xqn", np.linalg.inv(turned * edges), values[1:])
        unknowns = np.zeros((len(a), values.shape[2], 1 if degree == 1 else 4), complex)
        for node in range(values.shape[2]):
            kind, phase = nodes[node]
            unknowns[:, node, kind] = phase
        fields = np.einsum("aqn,knd->kaqd", np.concatenate([values[:1], gradient]), unknowns)
        weight = weights * abs(np.linalg.det(edges))
        total = total + np.einsum("kaqi,q,kbqj->kabij", fields.conj(), weight, fields)
    return total


@pytest.mark.parametrize("degree", [1, 2])
def test_diffusion_across_the_flow_keeps_the_limit_and_twice_as_much_would_not(degree):
    turns = 2 * np.pi * np.arange(12) / 12
    products = bloch_waves(degree, [(p, q) for p in turns for q in turns[:7]])  # the rest are complex conjugates
    mass = products[:, 0, 0]

    def growth(advective, angle, share, factor=1.0):
        """Return the largest amplification where a share σ of the closure is that of subscales; all depths equal."""
        along, across = np.array([[0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
        cells = advective / multistep.ADVECTION[degree]
        most = multistep.VISCOUS / multistep.DIFFUSION[degree] ** 2
        advection = np.einsum("kbij,b->kij", products[:, 0], along)
        stiff, cross = (np.einsum("kabij,a,b->kij", products, e, e) for e in (along, across))
        resolved = advection.conj().transpose(0, 2, 1) @ np.linalg.solve(mass, advection)
        slow = -np.linalg.solve(mass, cells * advection + cells * UPWIND / (2 * degree) * (stiff - share**2 * resolved)
                                + (1 - share) * factor * min(cells / (2 * degree), most) * cross)
        rates = np.linalg.eigvals(slow).ravel()
        step = np.zeros((len(rates), 3, 3), complex)
        step[:, 0] = np.outer(rates, multistep.EXPLICIT)
        step[:, 0, 0] += 1
        step[:, 1, 0] = step[:, 2, 1] = 1
        return np.abs(np.linalg.eigvals(step)).max()

    # By symmetry flows at 0 to 30 degrees are all there are. Below 0.1 the whole time scale acts, above the cap.
    flows = [(a, angle, share) for a in (0.05, 0.1, 0.2, 0.4, multistep.STABLE)
             for angle in np.radians([0, 7.5, 15, 22.5, 30]) for share in (0.0, 0.5, 1.0)]
    assert max(growth(*flow) for flow in flows) < 1 + 1e-7
    assert growth(multistep.STABLE, 0.0, 0.0, factor=2.0) > 1.01


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
    # on a coarse mesh the Earth's rotation is the faster
    dt = multistep.default_step(speed=40.0, size=2e6, degree=2, total=86400.0, rotation=1.4584e-4)
    assert 0.7 * multistep.STABLE < 1.4584e-4 * dt <= 0.8 * multistep.STABLE


@pytest.mark.parametrize("froude", [0.25, 0.1])
def test_inertial_waves_are_stable_at_the_default_step(froude):
    # ζ' = −f D, D' = f ζ + gravity wave, f explicit, on a current: all waves up to the advective limit, depths up to
    # the reference depth, which is the largest of the initial state
    limit = 0.8 * multistep.STABLE
    for ratio in (0.3, 0.7, 1.0):
        for a in np.linspace(0, limit, 89):
            wave = a / froude
            fast = np.array([[0, -wave, 0], [wave, 0, 0], [0, 0, 0]], dtype=complex)
            slow = 1j * a * np.eye(3) + np.array([[0, (1 - ratio) * wave, 0], [0, 0, limit], [0, -limit, 0]])
            assert np.abs(np.linalg.eigvals(multistep.companion(slow, fast))).max() < 1 + 1e-7, (ratio, a)

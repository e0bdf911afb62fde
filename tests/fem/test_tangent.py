import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

import ufl
from dolfinx import fem
from mpi4py import MPI
from petsc4py import PETSc

from analogpde.fem import tangent
from analogpde.fem.forms import integral, vector
from analogpde.fem.sphere import create_sphere

H, UPWIND, G = 5.0, 0.3, 9.8
BOUNDS = np.array([-0.2, 0.2, 0.1])
FULL, FASTEST = 0.25, 0.3


@pytest.fixture(params=[1, 2])
def setting(request, comm):
    mesh = create_sphere(comm, 1, radius=2.0)
    space = fem.functionspace(mesh, ("Lagrange", request.param))
    functions = []
    for k, scale in enumerate((1.0, 0.5, 2.0, 1.0, 0.3)):
        function = fem.Function(space)
        function.interpolate(lambda x, k=k, s=scale: s * np.sin((k + 1) * x[0] + x[1] - 0.7 * k * x[2]) + 4 * (k == 3))
        functions.append(function)
    degree = 2 * request.param + 2
    return mesh, space, functions, degree, tangent.tabulate(space, degree)


@pytest.mark.mpi
def test_one_pass_makes_what_the_forms_say(setting):
    mesh, space, (psi, chi, eta, h, smooth), degree, cells = setting
    sums = np.zeros((5, len(psi.x.array)))
    basis = (cells.dofs, cells.basis, cells.gradient, cells.weight, cells.height)
    tangent.tendencies(*basis, psi.x.array, chi.x.array, eta.x.array, smooth.x.array, h.x.array, H, UPWIND, FULL,
                       FASTEST, BOUNDS, sums[:4])
    tangent.advection(*basis, psi.x.array, chi.x.array, eta.x.array, h.x.array, UPWIND, BOUNDS, sums[4])
    height = fem.Function(fem.functionspace(mesh, ("DG", 0)))
    height.x.array[: len(cells.height)] = cells.height  # one unknown a cell, in the order of the cells
    n, w = ufl.CellNormal(mesh), ufl.TestFunction(space)
    u = ufl.cross(n, ufl.grad(psi)) + ufl.grad(chi)
    root = ufl.sqrt(UPWIND * height / ufl.sqrt(ufl.dot(u, u)))  # of the time scale
    low, high, ramp = BOUNDS
    ratio = (eta.x.array / h.x.array)[cells.dofs]
    excess = fem.Function(height.function_space)  # at the worst node of each cell
    excess.x.array[: len(cells.height)] = np.maximum(ratio - high, low - ratio).max(axis=1) / ramp
    sigma = ufl.min_value(ufl.max_value(2 - excess, 0), 1)
    # The bounds are such that this state is inside somewhere, outside elsewhere, and between in a third place.
    shares = [integral(mesh.comm, ufl.conditional(where, 1.0, 0.0) * ufl.dx(mesh))
              for where in (ufl.le(excess, 1), ufl.ge(excess, 2), ufl.And(ufl.gt(excess, 1), ufl.lt(excess, 2)))]
    assert min(shares) > 0.05 * sum(shares)
    speed = ufl.sqrt(ufl.dot(u, u))
    slow = ufl.lt(FULL * speed, FASTEST * height)  # and so that both terms of the smaller one are it somewhere
    assert 0.05 < integral(mesh.comm, ufl.conditional(slow, 1.0, 0.0) * ufl.dx(mesh)) / sum(shares) < 0.95
    kappa = height * ufl.min_value(FULL * speed, FASTEST * height)
    star = eta - root * (root * ufl.dot(u, ufl.grad(eta)) - sigma * smooth)
    across = ufl.cross(n, u)
    spread = (1 - sigma) * kappa * ufl.dot(across, h * ufl.grad(eta / h)) * across / speed**2
    dx = ufl.dx(metadata={"quadrature_degree": degree})
    forms = (ufl.dot(star * u - spread, ufl.grad(w)), star * ufl.dot(ufl.cross(n, u), ufl.grad(w)),
             (h - H) * ufl.dot(u, ufl.grad(w)), 0.5 * ufl.dot(u, u) * w,
             sigma * root * ufl.dot(u, ufl.grad(eta)) * w)
    for row, form in zip(sums, forms, strict=True):
        expected = vector(form * dx)
        got = expected.duplicate()
        with got.localForm() as local:
            local.array[:] = row
        got.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        # The same quadrature points, so the same numbers but for some hundred roundings.
        assert np.allclose(got.array, expected.array, rtol=0, atol=1e-12 * expected.norm(PETSc.NormType.INFINITY))


@pytest.mark.mpi
def test_integrals_and_norms(setting, comm):
    mesh, _, (psi, chi, eta, h, b), degree, cells = setting
    sums, peaks, norms = np.zeros(5), np.zeros(2), np.zeros(2)
    tangent.integrals(cells.dofs, cells.basis, cells.gradient, cells.weight, psi.x.array, chi.x.array, eta.x.array,
                      h.x.array, b.x.array, cells.height, G, sums, peaks)
    tangent.norms(cells.dofs, cells.basis, cells.weight, eta.x.array, norms)
    u = ufl.cross(ufl.CellNormal(mesh), ufl.grad(psi)) + ufl.grad(chi)
    square = ufl.dot(u, u)
    dx = ufl.dx(metadata={"quadrature_degree": degree})
    expected = [integral(comm, form * dx) for form in (
        fem.Constant(mesh, 1.0), h, h * square / 2 + G * h**2 / 2 + G * h * b, eta**2 / (2 * h),
        ufl.dot(ufl.grad(chi), ufl.grad(chi)), abs(eta), eta**2)]
    got = comm.allreduce(np.concatenate([sums, norms]), MPI.SUM)
    assert np.allclose(got, expected, rtol=1e-12)  # sums of some thousand terms
    speed, rate = (comm.allreduce(peak, MPI.MAX) for peak in peaks)
    assert 0 < speed < 10
    # Cells of the icosphere of level 1 differ by a factor of 1.2 in height.
    height = comm.allreduce(cells.height.min(initial=np.inf), MPI.MIN)
    assert speed / (1.3 * height) < rate <= speed / height

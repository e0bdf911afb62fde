import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

import ufl
from dolfinx import fem, mesh
from petsc4py import PETSc

from analogpde.fem.forms import matrix, zero_vector
from analogpde.fem.system import LinearSystem
from analogpde.fem.unknown import Unknown
from analogpde.refine.record import SolveLog

pytestmark = pytest.mark.mpi
RTOL = 1e-8


@pytest.fixture(params=[False, True], ids=["mass", "singular stiffness"])
def case(request, comm):
    """An unknown with what makes right-hand sides of nodal values, and coordinates."""
    database, options = PETSc.Options(), {"u_ksp_type": "cg", "u_pc_type": "jacobi", "u_ksp_rtol": str(RTOL)}
    for name, value in options.items():
        database.setValue(name, value)
    space = fem.functionspace(mesh.create_unit_square(comm, 12, 12), ("Lagrange", 1))
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    A = matrix((ufl.inner(ufl.grad(u), ufl.grad(v)) if request.param else u * v) * ufl.dx)
    if request.param:
        A.setNullSpace(PETSc.NullSpace().create(constant=True, comm=comm))
    system = LinearSystem(A, prefix="u_", log=SolveLog())
    b, x = zero_vector(space), zero_vector(space)

    def image(values):
        x.array[:] = values
        A.mult(x, b)
        return b

    place = space.tabulate_dof_coordinates()[: len(x.array)]
    yield system, space, image, place
    system.destroy()
    for name in options:
        database.delValue(name)


def iterations(system):
    return system.ksp.getIterationNumber()


def test_oscillations_are_foreseen_where_extrapolation_fails(case):
    # Two standing waves of different frequency obey a recursion over four times: their solutions span four directions,
    # and the next lies in the span of the past up to the accuracy of the solves.
    system, space, image, place = case
    first, second = np.exp(place[:, 0]) * place[:, 1], np.sin(5 * place[:, 0] * place[:, 1])
    unknown, counts = Unknown(space, "field", system), []
    for step in range(9):
        exact = np.cos(1.1 * step) * first + np.cos(0.6 * step) * second
        unknown.solve(image(exact))
        counts.append(iterations(system))
        error = unknown.values - exact
        comm = space.mesh.comm
        mean = comm.allreduce(error.sum()) / comm.allreduce(len(error))
        # rtol times the condition number, 1 to 300 here, of what has size 1
        assert np.abs(error - (mean if system.null_space is not None else 0)).max() < 1e3 * RTOL
    assert counts[0] > 5
    assert max(counts[6:]) <= counts[0] // 2
    assert len(unknown.past) == Unknown.KEPT


def test_one_that_begins_from_stored_solutions_goes_on_bit_for_bit(case):
    system, space, image, place = case
    unknown, other = Unknown(space, "field", system), Unknown(space, "other", system)
    for step in range(5):
        unknown.solve(image(np.sin(step + 3 * place[:, 0]) - np.cos(step * place[:, 1])))
    other.begin([values.copy() for values in unknown.past])
    assert np.array_equal(other.values, unknown.values)
    for step in range(5, 8):
        b = image(np.sin(step + 3 * place[:, 0]) - np.cos(step * place[:, 1])).copy()
        unknown.solve(b.copy())
        other.solve(b)
        assert np.array_equal(other.values, unknown.values)


def test_a_steady_field_needs_no_iterations(case):
    system, space, image, place = case
    unknown = Unknown(space, "field", system)
    for _ in range(4):
        unknown.solve(image(place[:, 0] * place[:, 1]))
    assert iterations(system) == 0

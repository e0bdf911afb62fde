import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

import ufl
from dolfinx import fem, mesh
from petsc4py import PETSc

from analogpde.fem.forms import Dirichlet, integral, l2_norm, matrix, mean_diagonal, point_value, vector, zero_vector

pytestmark = pytest.mark.mpi


@pytest.fixture
def space(comm):
    return fem.functionspace(mesh.create_unit_square(comm, 6, 5), ("Lagrange", 2))


def laplacian(space):
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    return matrix(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)


def outside(space):
    return mesh.locate_entities_boundary(space.mesh, 1, lambda x: np.full(x.shape[1], True))


def test_lifting_and_constraining_reproduce_a_harmonic_polynomial(comm, space):
    # x² − y² + time is harmonic and in the space: the discrete solution is exact.
    A, free = laplacian(space), laplacian(space)
    dirichlet = Dirichlet(space, outside(space), lambda x, t: x[0] ** 2 - x[1] ** 2 + t)
    dirichlet.constrain(A)
    assert dirichlet.diagonal == pytest.approx(mean_diagonal(free))
    assert A.isSymmetric(1e-12)
    b = zero_vector(space)
    dirichlet.lift(b, [(1.0, free)], 2.0)
    solution = fem.Function(space)
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(A)
    ksp.setType("preonly")
    ksp.getPC().setType("lu")
    ksp.getPC().setFactorSolverType("mumps")
    ksp.solve(b, solution.x.petsc_vec)
    solution.x.scatter_forward()
    exact = fem.Function(space)
    exact.interpolate(lambda x: x[0] ** 2 - x[1] ** 2 + 2.0)
    assert l2_norm(comm, solution - exact, ufl.dx) < 1e-12
    ksp.destroy()


def test_homogeneous_values_only_clear_the_rows(comm, space):
    dirichlet = Dirichlet(space, outside(space))
    assert dirichlet.homogeneous
    b = zero_vector(space)
    b.set(1.0)
    dirichlet.lift(b, [], 0.0)
    rows = comm.allreduce(len(dirichlet.rows))
    assert b.sum() == pytest.approx(b.size - rows)


def test_point_values_are_found_on_whichever_rank_has_them(space):
    function = fem.Function(space)
    function.interpolate(lambda x: x[0] * x[1])
    assert point_value(function, [0.3, 0.7]) == pytest.approx(0.21)
    assert point_value(function, [1.0, 1.0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no cell contains"):
        point_value(function, [1.5, 0.5])


def test_integrals_are_summed_over_ranks(comm, space):
    assert integral(comm, fem.Constant(space.mesh, 3.0) * ufl.dx) == pytest.approx(3.0)


def test_a_vector_without_ghosts_is_refused_before_memory_is_overwritten(comm, space):
    form = fem.form(fem.Constant(space.mesh, 1.0) * ufl.TestFunction(space) * ufl.dx)
    numbers = space.dofmap.index_map
    short = PETSc.Vec().createMPI((numbers.size_local, numbers.size_global), comm=comm)
    if comm.size > 1:
        with pytest.raises(ValueError, match="zero_vector"):
            vector(form, short)
    assert vector(form).sum() == pytest.approx(1.0)

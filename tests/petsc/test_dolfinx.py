"""DOLFINx programs choose KSP analog by their options and need nothing else."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

pytestmark = pytest.mark.mpi
CELLS = 12


@pytest.fixture(scope="module")
def dolfinx(PETSc):
    """DOLFINx with its PETSc solvers."""
    dolfinx = pytest.importorskip("dolfinx", reason="needs DOLFINx", exc_type=ImportError)
    importlib.import_module("dolfinx.fem.petsc")
    return dolfinx


@pytest.fixture(scope="module")
def problem(dolfinx):
    """A Poisson problem on a square: function space, boundary condition, forms."""
    import ufl
    from mpi4py import MPI

    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_WORLD, CELLS, CELLS)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    facets = mesh.topology.dim - 1
    mesh.topology.create_connectivity(facets, facets + 1)
    border = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    condition = dolfinx.fem.dirichletbc(0.0, dolfinx.fem.locate_dofs_topological(space, facets, border), space)
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    x = ufl.SpatialCoordinate(mesh)
    factor = dolfinx.fem.Constant(mesh, 1.0)
    load = ufl.sin(3 * x[0]) * x[1]
    return space, condition, factor * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, load * v * ufl.dx, factor, load


def direct(dolfinx, problem, count=[0]):  # noqa: B006 - prefixes must differ, PETSc's database is one
    """The answer of an FP64 direct solver."""
    _, condition, a, right, *_ = problem
    count[0] += 1
    solver = dolfinx.fem.petsc.LinearProblem(a, right, bcs=[condition], petsc_options_prefix=f"direct{count[0]}_",
                                             petsc_options={"ksp_type": "preonly", "pc_type": "lu",
                                                            "pc_factor_mat_solver_type": "mumps"})
    return solver.solve()


def distance(PETSc, one, other):
    """‖one − other‖/‖other‖ over all ranks."""
    difference = one.x.petsc_vec.copy()
    difference.axpy(-1.0, other.x.petsc_vec)
    return difference.norm() / other.x.petsc_vec.norm()


@pytest.mark.parametrize("given", [{"ksp_type": "analog"}, {"ksp_type": "analog", "analog_chip": "pku2025"},
                                   {"ksp_type": "fgmres", "pc_type": "analog", "ksp_rtol": 1e-10}])
def test_linear_problem(PETSc, dolfinx, problem, given):
    _, condition, a, right, *_ = problem
    solver = dolfinx.fem.petsc.LinearProblem(a, right, bcs=[condition], petsc_options_prefix="lp_", petsc_options=given)
    assert (solver.solver.getType(), solver.solver.getPC().getType()) == (given["ksp_type"], "analog")
    u = solver.solve()
    assert solver.solver.getConvergedReason() > 0
    assert distance(PETSc, u, direct(dolfinx, problem)) <= 2.0**-23


def test_linear_problem_assembles_in_each_solve_and_programs_once(PETSc, dolfinx, problem):
    _, condition, a, right, factor, _ = problem
    solver = dolfinx.fem.petsc.LinearProblem(a, right, bcs=[condition], petsc_options_prefix="lp_",
                                             petsc_options={"ksp_type": "analog"})
    for _ in range(3):
        solver.solve()
    assert solver.solver.getPC().getPythonContext().programmings == 1
    factor.value = 2.0
    try:
        u = solver.solve()
        assert solver.solver.getPC().getPythonContext().programmings == 2
        assert distance(PETSc, u, direct(dolfinx, problem)) <= 2.0**-23
    finally:
        factor.value = 1.0


def test_nonlinear_problem(PETSc, dolfinx, problem):
    import ufl

    space, condition, _, _, _, load = problem
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    form = (1 + u**2) * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx - 10 * load * v * ufl.dx
    answers = []
    for name, given in (("nla_", {"ksp_type": "analog"}), ("nld_", {"ksp_type": "preonly", "pc_type": "lu"})):
        u.x.array[:] = 0.0
        solver = dolfinx.fem.petsc.NonlinearProblem(
            form, u, bcs=[condition], petsc_options_prefix=name,
            petsc_options={"snes_rtol": 1e-11, "snes_atol": 1e-30, "snes_linesearch_type": "none",
                           "pc_factor_mat_solver_type": "mumps", **given})
        solver.solve()
        assert solver.solver.getConvergedReason() > 0
        assert solver.solver.getKSP().getType() == given["ksp_type"]
        answers.append(u.copy())
        steps = solver.solver.getIterationNumber()
        if name == "nla_":
            analog = solver.solver.getKSP().getPC().getPythonContext()
            assert analog.programmings == steps >= 3  # the Jacobian changes in every step
    # both residuals are below 1e-11 of ‖F(0)‖, and Newton's last step gains digits beyond it
    assert distance(PETSc, *answers) <= 1e-9
    assert np.isfinite(u.x.array).all()

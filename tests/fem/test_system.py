import numpy as np
import pytest

pytest.importorskip("analogpde.fem", exc_type=ImportError)

import ufl
from dolfinx import fem, mesh
from petsc4py import PETSc

from analogpde.fem.forms import Dirichlet, matrix, zero_vector
from analogpde.fem.system import LinearSystem, NotConverged, inherit_options
from analogpde.fem.verify import Verifier
from analogpde.refine.record import SolveLog

pytestmark = pytest.mark.mpi


@pytest.fixture
def options():
    """A setter of PETSc options that are gone after the test."""
    database, before = PETSc.Options(), PETSc.Options().getAll()

    def put(**values):
        for name, value in values.items():
            database.setValue(name, str(value))

    yield put
    for name in database.getAll():
        if name not in before:
            database.delValue(name)


def laplacian(comm, singular):
    space = fem.functionspace(mesh.create_unit_square(comm, 12, 12), ("Lagrange", 1))
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    A = matrix(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
    if singular:
        A.setNullSpace(PETSc.NullSpace().create(constant=True, comm=comm))
    else:
        Dirichlet(space, mesh.locate_entities_boundary(space.mesh, 1, lambda x: x[0] < 0.01)).constrain(A)
    exact = fem.Function(space)
    exact.interpolate(lambda x: np.cos(np.pi * x[0]) + x[1] ** 2)
    b = zero_vector(space)
    A.mult(exact.x.petsc_vec, b)
    return A, b, space  # the vectors use the communicator of the mesh: it has to live as long


@pytest.mark.parametrize(("given", "parts"), [
    ({"t_pc_type": "analog"}, ""),
    ({"t_pc_type": "gamg", "t_mg_levels_pc_type": "analog", "t_mg_levels_pc_analog_levels": 1}, "only inside")])
def test_tiles_under_a_ksp_of_petscs_are_counted(comm, options, given, parts):
    options(t_ksp_type="fgmres", **given)
    A, b, _space = laplacian(comm, False)
    log = SolveLog()
    system = LinearSystem(A, prefix="t_", log=log)
    x = b.duplicate()
    counts = []
    for _ in range(2):
        x.set(0.0)
        system.solve(b, x)
        record, operations = log.solves["t_"].worst, log.solves["t_"].operations
        counts.append((operations.tiles_programmed, operations.inv_shots))
        assert "no tile" not in record.advice
        assert parts in record.digital_parts and bool(record.digital_parts) == bool(parts)
    assert counts[0][0] == counts[1][0] > 0  # programmed once
    # of the same b: as many iterations, but for the tiles' noise, of as many shots each
    assert 1.5 * counts[0][1] < counts[1][1] < 2.5 * counts[0][1]
    assert sum(step.inv_shots for step in record.history) == record.operations.inv_shots
    system.destroy()


@pytest.mark.parametrize("singular", [False, True])
def test_a_digital_solve_is_recorded_as_digital_and_verified(comm, options, singular):
    options(t_ksp_type="cg", t_pc_type="gamg")
    A, b, _space = laplacian(comm, singular)
    log = SolveLog()
    system = LinearSystem(A, prefix="t_", log=log, verifier=Verifier(A, 2, print))
    x = b.duplicate()
    x.set(0.0)
    for _ in range(2):
        system.solve(b, x)
    summary = log.solves["t_"]
    assert summary.count == 2 and summary.failures == 0
    record = summary.worst
    assert record.preconditioner == "gamg" and "Digital" in record.advice and record.unknowns == 169
    assert record.operations.inv_shots == 0
    assert record.iterations > 3 and record.history[-1].relative_residual <= 1e-10  # the default of a digital KSP
    assert record.history[0].relative_residual == pytest.approx(1.0)
    # Forward error: condition number (some 1e3) times 1e-10 at most; FP32: above its own unit roundoff 6e-8.
    assert summary.forward_error < 1e-8
    assert 1e-8 < summary.forward_error_fp32 < 1e-4
    if singular:
        assert abs(x.sum()) < 1e-9 * x.norm()
    system.destroy()


@pytest.mark.parametrize("singular", [False, True])
def test_references_of_the_same_matrix_are_factorised_once(comm, monkeypatch, singular):
    monkeypatch.setattr(Verifier, "keep", 1)
    A, b, _space = laplacian(comm, singular)
    x = b.duplicate()
    x.set(1.0)
    first = Verifier(A, 2, print)
    errors = first.errors(b, x)
    factors = first._factors
    first.destroy()
    again = A.copy()
    again.setNullSpace(A.getNullSpace())
    A.destroy()
    second = Verifier(again, 2, print)
    assert second.errors(b, x) == errors and second._factors is factors
    second.destroy()
    again.scale(2.0)
    third = Verifier(again, 2, print)
    third.errors(b, x)
    assert third._factors is not factors
    third.destroy()
    assert len(Verifier.kept) == 1  # the latest
    monkeypatch.setattr(Verifier, "keep", 0)
    fourth = Verifier(again, 2, print)
    fourth.errors(b, x)
    fourth.destroy()
    assert not Verifier.kept


def test_a_tolerance_of_the_user_wins(comm, options):
    options(t_ksp_type="cg", t_pc_type="jacobi", t_ksp_rtol="1e-3")
    A, b, _space = laplacian(comm, False)
    log = SolveLog()
    system = LinearSystem(A, prefix="t_", log=log)
    x = b.duplicate()
    x.set(0.0)
    system.solve(b, x)
    assert 1e-8 < log.solves["t_"].worst.relative_residual < 1e-2
    system.destroy()


def test_a_solve_that_does_not_converge_is_an_error_and_stays_in_the_log(comm, options):
    options(t_ksp_type="cg", t_pc_type="jacobi", t_ksp_max_it=2)
    A, b, _space = laplacian(comm, False)
    log = SolveLog()
    system = LinearSystem(A, prefix="t_", log=log)
    x = b.duplicate()
    x.set(0.0)
    with pytest.raises(NotConverged, match="2 iterations"):
        system.solve(b, x)
    assert log.solves["t_"].failures == 1
    system.destroy()


def test_unprefixed_options_hold_for_every_system_and_prefixed_ones_overrule_them(options):
    options(ksp_type="cg", pc_type="gamg", t_pc_type="jacobi", ksp_monitor_none="")
    inherit_options("t_")
    database = PETSc.Options()
    assert database.getString("t_ksp_type") == "cg"
    assert database.getString("t_pc_type") == "jacobi"
    assert not database.hasName("t_t_pc_type")


@pytest.mark.parametrize(("given", "levels"), [({}, 1), ({"pc_analog_levels": 2}, 2), ({"t_pc_analog_levels": 3}, 2)])
def test_one_level_of_tiles_for_a_mass_matrix_unless_the_user_says_otherwise(comm, options, given, levels):
    options(analog_chip="ideal", **given)
    space = fem.functionspace(mesh.create_unit_square(comm, 24, 24), ("Lagrange", 1))  # 625 unknowns: several tiles
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    A = matrix(u * v * ufl.dx)
    b = zero_vector(space)
    b.set(1.0)
    x = b.duplicate()
    x.set(0.0)
    system = LinearSystem(A, prefix="t_", log=SolveLog(), local=True)
    try:
        system.solve(b, x)
        assert len(system.shots) == levels
    finally:
        PETSc.Options().delValue("t_pc_analog_levels")

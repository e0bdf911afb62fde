"""Tiles inside other PETSc solvers, and other solvers inside KSP analog."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as linalg

from analogpde.petsc.pc import AnalogPC

pytestmark = pytest.mark.mpi

SMOOTHER = {"pc_type": "gamg", "pc_gamg_coarse_eq_limit": 30, "mg_levels_ksp_type": "richardson",
            "mg_levels_ksp_max_it": 1, "mg_levels_pc_type": "analog", "mg_levels_pc_analog_levels": 1}
KSP_SMOOTHER = {"pc_type": "gamg", "pc_gamg_coarse_eq_limit": 30, "mg_levels_ksp_type": "analog",
                "mg_levels_ksp_norm_type": "none", "mg_levels_ksp_max_it": 2, "mg_levels_pc_type": "analog",
                "mg_levels_pc_analog_levels": 1}
INNER = {"pc_type": "ksp", "ksp_ksp_type": "analog", "ksp_ksp_rtol": 1e-2}
SUB = {"sub_pc_type": "analog"}
PLACES = {
    "pc": {"pc_type": "analog"},
    "one level": {"pc_type": "analog", "pc_analog_levels": 1},
    "bjacobi": {"pc_type": "bjacobi", **SUB},
    "bjacobi, several blocks a rank": {"pc_type": "bjacobi", "pc_bjacobi_blocks": 6, **SUB},
    "bjacobi, ksp": {"pc_type": "bjacobi", "sub_ksp_type": "analog", "sub_ksp_rtol": 1e-2},
    "asm": {"pc_type": "asm", "pc_asm_overlap": 2, **SUB},
    "composite": {"pc_type": "composite", "pc_composite_type": "multiplicative", "pc_composite_pcs": "jacobi,analog"},
    "gamg smoother": SMOOTHER,
    "gamg smoother, ksp": KSP_SMOOTHER,
    "gamg smoother, plain ksp": {**KSP_SMOOTHER, "mg_levels_ksp_analog_accelerator": "none"},
    "gamg coarse": {"pc_type": "gamg", "pc_gamg_coarse_eq_limit": 100, "mg_coarse_pc_type": "analog",
                    "mg_coarse_ksp_type": "preonly"},
    "pcksp": INNER,
    "pcksp as smoother": {**INNER, "ksp_ksp_norm_type": "none", "ksp_ksp_max_it": 3},
    "redundant": {"pc_type": "redundant", "redundant_ksp_type": "analog", "redundant_pc_type": "analog",
                  "redundant_ksp_rtol": 1e-2},
}


@pytest.fixture
def shots(PETSc):
    """A function that returns how many INV shots there were on all ranks since it was last called."""
    from analogpde.petsc import log

    comm = PETSc.COMM_WORLD.tompi4py()
    last = [0]

    def count():
        now = comm.allreduce(log.machine.inv_shots)
        last[0], since = now, now - last[0]
        return since

    count()
    return count


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("outer", ["analog", "fgmres"])
def test_tiles_anywhere(solve, gallery, shots, place, outer):
    given = dict(PLACES[place])
    if outer == "fgmres":
        given.update(ksp_type="fgmres", ksp_rtol=1e-9)
    done = solve(gallery.poisson(20, 20), **given)
    assert done.ksp.getType() == outer
    assert done.ksp.getPC().getType() == given["pc_type"]
    assert done.reason > 0
    assert shots() > 0
    if outer == "analog":
        done.assert_fp32()
    else:
        assert done.relative_residual <= 1.01e-9  # right preconditioning: its residual is the true one
    assert done.iterations <= 60


@pytest.mark.parametrize("kind", ["fgmres", "gcr", "fcg", "richardson"])
@pytest.mark.parametrize("chip", ["pku2025", "rram128"])
def test_flexible_solvers_with_noisy_tiles(solve, gallery, kind, chip, capsys):
    done = solve(gallery.poisson(20, 20), ksp_type=kind, pc_type="analog", ksp_rtol=1e-8, analog_chip=chip,
                 ksp_norm_type="unpreconditioned")
    assert done.reason == 2
    assert done.relative_residual <= 1.01e-8
    assert "-ksp_type" not in capsys.readouterr().err


def test_conjugate_gradients_with_a_symmetric_preconditioner(solve, gallery):
    # the whole matrix on one tile, no noise: as good as fixed and symmetric
    done = solve(gallery.poisson(10, 10), ksp_type="cg", pc_type="analog", ksp_rtol=1e-9, analog_chip="ideal",
                 ksp_norm_type="unpreconditioned")
    assert done.reason == 2
    assert done.relative_residual <= 1.01e-9


@pytest.mark.parametrize(("kind", "chip", "warned"), [
    ("gmres", "rram128", True), ("bcgs", "pku2025", True), ("cg", "rram128", True), ("gmres", "ideal", False),
    ("fgmres", "rram128", False), ("preonly", "rram128", False), ("analog", "rram128", False)])
def test_solvers_that_need_a_fixed_preconditioner_are_warned_of_noise(
    PETSc, solve, gallery, kind, chip, warned, capsys,
):
    done = solve(gallery.poisson(12, 12), ksp_type=kind, pc_type="analog", analog_chip=chip)
    done.ksp.solve(done.rhs, done.solution)
    said = capsys.readouterr().err
    assert said.count("fgmres") == int(warned and PETSc.COMM_WORLD.rank == 0)  # once


@pytest.mark.parametrize(("given", "told"), [
    ({"ksp_type": "gmres"}, True), ({"ksp_type": "cg"}, True), ({"ksp_type": "fgmres"}, False), ({}, False),
    ({"ksp_type": "gmres", "analog_chip": "ideal"}, False)])
@pytest.mark.parametrize("place", ["gamg smoother", "asm"])
def test_solvers_around_tiles_deeper_inside_are_warned_of_once(PETSc, solve, gallery, given, told, place, capsys,
                                                               monkeypatch):
    done = solve(gallery.poisson(20, 20), **PLACES[place], **given)
    capsys.readouterr()
    monkeypatch.setattr(AnalogPC, "warned_inside", False)
    options = PETSc.Options()
    if "ksp_type" in given:
        options["ksp_type"] = given["ksp_type"]  # as on a command line: the fixture has taken it away again
    try:
        for _ in range(2):
            done.ksp.solve(done.rhs, done.solution)
    finally:
        options.delValue("ksp_type")
    said = capsys.readouterr().err
    assert said.count("tiles are part of another preconditioner") == int(told and PETSc.COMM_WORLD.rank == 0)


def test_fieldsplit(PETSc, solve, gallery, distribute, shots):
    n = 144
    coupling = sp.diags_array(0.3 * np.ones(n))
    whole = sp.csr_matrix(sp.block_array([[gallery.poisson(12, 12), coupling], [coupling, gallery.mass(12)]]))
    matrix = distribute(whole)
    begin, end = matrix.getOwnershipRange()
    comm = PETSc.COMM_WORLD

    def split(ksp):
        upper = PETSc.IS().createStride(max(0, min(end, n) - begin), begin, 1, comm=comm)
        lower = PETSc.IS().createStride(max(0, end - max(begin, n)), max(begin, n), 1, comm=comm)
        ksp.getPC().setFieldSplitIS(("0", upper), ("1", lower))

    done = solve(whole, matrix=matrix, pc_type="fieldsplit", prepare=split, fieldsplit_0_pc_type="analog",
                 fieldsplit_0_ksp_type="preonly", fieldsplit_1_ksp_type="analog", fieldsplit_1_ksp_rtol=1e-2)
    done.assert_fp32()
    assert shots() > 0
    kinds = [(sub.getType(), sub.getPC().getType()) for sub in done.ksp.getPC().getFieldSplitSubKSP()]
    assert kinds == [("preonly", "analog"), ("analog", "analog")]


def test_the_stabilised_saddle_point_of_the_advice(PETSc, solve, gallery, distribute, cause):
    # what the message for a zero diagonal recommends works
    whole = gallery.saddle(12)
    n = 144
    matrix = distribute(whole)
    begin, end = matrix.getOwnershipRange()

    def split(ksp):
        upper = PETSc.IS().createStride(max(0, min(end, n) - begin), begin, 1, comm=PETSc.COMM_WORLD)
        lower = PETSc.IS().createStride(max(0, end - max(begin, n)), max(begin, n), 1, comm=PETSc.COMM_WORLD)
        ksp.getPC().setFieldSplitIS(("0", upper), ("1", lower))

    done = solve(whole, matrix=matrix, pc_type="fieldsplit", pc_fieldsplit_type="schur",
                 pc_fieldsplit_schur_fact_type="full", pc_fieldsplit_schur_precondition="selfp", prepare=split,
                 fieldsplit_0_ksp_type="preonly", fieldsplit_0_pc_type="analog", fieldsplit_1_ksp_type="preonly",
                 fieldsplit_1_pc_type="analog", ksp_max_it=200, ksp_analog_stagnation=100,
                 ksp_analog_accelerator="fgmres", ksp_rtol=1e-8)
    assert done.reason == 2
    assert done.relative_residual <= 1.001e-8


def test_multigrid_options_reach_the_cycle(solve, gallery):
    plain = solve(gallery.poisson(20, 20))
    more = solve(gallery.poisson(20, 20), pc_analog_mg_levels_ksp_max_it=3)
    more.assert_fp32()
    assert more.iterations < plain.iterations


@pytest.mark.parametrize("accelerator", ["auto", "none", "fcg", "fgmres"])
def test_without_a_norm_it_does_so_many_steps(PETSc, solve, gallery, accelerator):
    exact = None
    for steps in (1, 3):
        done = solve(gallery.poisson(20, 20), ksp_norm_type="none", ksp_max_it=steps,
                     ksp_analog_accelerator=accelerator)
        assert (done.reason, done.iterations) == (4, steps)
        error = done.forward_error()
        assert exact is None or error < exact
        exact = error
    zero = solve(gallery.poisson(20, 20), np.zeros(400), ksp_norm_type="none", ksp_max_it=2,
                 ksp_analog_accelerator=accelerator)
    assert zero.reason == 4
    assert not zero.x.any()


# ---- nonlinear and time-dependent -------------------------------------------------------------------------------

def test_newtons_linear_solves(PETSc, gallery, distribute, options, scatter, shots):
    # A u + u³ = b; the Jacobian A + 3 u² changes from step to step
    whole = gallery.poisson(12, 12)
    matrix, jacobian = distribute(whole), distribute(whole)
    b = scatter(matrix, np.ones(144))
    snes = PETSc.SNES().create(PETSc.COMM_WORLD)
    work = b.duplicate()

    def residual(snes, u, f):
        matrix.mult(u, f)
        work.pointwiseMult(u, u)
        work.pointwiseMult(work, u)
        f.axpy(1.0, work)
        f.axpy(-1.0, b)

    def derivative(snes, u, j, p):
        matrix.copy(p)
        work.pointwiseMult(u, u)
        work.scale(3.0)
        p.setDiagonal(work, addv=PETSc.InsertMode.ADD_VALUES)
        p.assemble()

    snes.setFunction(residual, b.duplicate())
    snes.setJacobian(derivative, jacobian)
    options["n_ksp_type"] = "analog"
    options["n_snes_rtol"] = 1e-12
    snes.setOptionsPrefix("n_")
    snes.setFromOptions()
    u = b.duplicate()
    u.set(0.0)
    snes.solve(None, u)
    assert snes.getConvergedReason() > 0
    assert snes.getKSP().getType() == "analog"
    assert snes.getKSP().getPC().getPythonContext().programmings == snes.getIterationNumber()
    assert shots() > 0
    x = np.concatenate(PETSc.COMM_WORLD.tompi4py().allgather(u.array_r.copy()))
    rest = np.linalg.norm(whole @ x + x**3 - 1.0)
    assert rest <= 1.001e-12 * np.linalg.norm(np.ones(144))


def test_implicit_time_stepping_programs_once(PETSc, gallery, distribute, options, scatter, shots):
    # u' = −A u by backward Euler; the matrix of the solves, I/Δt + A, is assembled in each step and never changes
    whole, steps, step = gallery.poisson(12, 12), 5, 0.0625  # exact sums: the last step is no longer
    right, shifted = distribute(-whole), distribute(sp.csr_matrix(whole + sp.eye_array(144)))
    ts = PETSc.TS().create(PETSc.COMM_WORLD)
    ts.setOptionsPrefix("t_")

    def implicit(ts, t, u, v, f):
        right.mult(u, f)
        f.aypx(-1.0, v)

    def derivative(ts, t, u, v, shift, j, p):
        right.copy(p)
        p.scale(-1.0)
        p.shift(shift)
        p.assemble()

    start = 1.0 + np.sin(0.2 * np.arange(144))
    u = scatter(right, start)
    ts.setIFunction(implicit, u.duplicate())
    ts.setIJacobian(derivative, shifted)
    ts.setType("beuler")
    ts.setTimeStep(step)
    ts.setMaxSteps(steps)
    ts.setMaxTime(steps * step)
    ts.setExactFinalTime(PETSc.TS.ExactFinalTime.MATCHSTEP)
    options["t_ksp_type"] = "analog"
    options["t_snes_type"] = "ksponly"
    ts.setFromOptions()
    ts.solve(u)
    ksp = ts.getSNES().getKSP()
    assert (ksp.getType(), ksp.getPC().getType()) == ("analog", "analog")
    assert ts.getStepNumber() == steps
    assert ksp.getPC().getPythonContext().programmings == 1
    assert shots() > 0
    exact, solver = start, linalg.splu(sp.csc_matrix(sp.eye_array(144) + step * whole))
    for _ in range(steps):
        exact = solver.solve(exact)
    x = np.concatenate(PETSc.COMM_WORLD.tompi4py().allgather(u.array_r.copy()))
    # each step solves for the change to 2^-23 of it; the changes are below the start, and errors are damped
    assert np.linalg.norm(x - exact) <= steps * 2.0**-23 * np.linalg.norm(start)


def test_a_coarse_solver_that_is_not_to_test_ends(solve, gallery):
    # GAMG's coarse KSP has no convergence test and PETSc's 10 000 steps: all but the first few change nothing
    from analogpde.petsc.log import machine

    before = machine.inv_shots
    done = solve(gallery.poisson(30, 30), ksp_type="cg", pc_type="gamg", mg_coarse_ksp_type="analog",
                 mg_coarse_pc_type="analog", ksp_rtol=1e-8, ksp_norm_type="unpreconditioned")
    assert done.reason > 0 and done.relative_residual <= 2e-8  # CG updates its residual
    # one tile; a step counts as progress if it takes off a tenth, so that FP64's floor at 1e-16 is reached in 350 steps
    # at most, after the last of which 30 more are tried (measured: 50 in all)
    assert machine.inv_shots - before <= 380 * (done.iterations + 2)

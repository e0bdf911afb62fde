"""What PETSc and its users expect of any KSP: tolerances, monitors, history, tests, reasons, initial guesses."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

pytestmark = pytest.mark.mpi

RTOL, ATOL, ITS, MAX_IT, DTOL, STAGNATED, NAN, PC_FAILED = 2, 3, 4, -3, -4, -5, -9, -11
ACCELERATORS = ["auto", "none", "fcg", "fgmres"]
EPS = np.finfo(float).eps


def history_of(solved):
    return np.array(solved.ksp.getConvergenceHistory())


def keep_history(ksp):
    ksp.setConvergenceHistory()


@pytest.mark.parametrize("accelerator", ACCELERATORS)
@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-10])
def test_rtol_is_met_by_the_true_residual_and_not_one_step_later(solve, gallery, accelerator, rtol):
    done = solve(gallery.poisson(16, 15), ksp_rtol=rtol, ksp_analog_accelerator=accelerator, prepare=keep_history)
    history = history_of(done) / np.linalg.norm(done.b)
    assert done.reason == RTOL
    assert done.relative_residual <= rtol
    assert (history[:-1] > rtol).all()
    assert len(history) == done.iterations + 1


def test_atol(solve, gallery):
    done = solve(gallery.poisson(16, 15), ksp_atol=1e-4, ksp_rtol=1e-14, prepare=keep_history)
    assert done.reason == ATOL
    assert np.linalg.norm(done.residual) <= 1e-4 < history_of(done)[-2]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_max_it(solve, gallery, limit, capsys):
    done = solve(gallery.poisson(16, 15), ksp_max_it=limit, ksp_rtol=1e-14, prepare=keep_history)
    assert (done.reason, done.iterations, len(history_of(done))) == (MAX_IT, limit, limit + 1)
    assert done.relative_residual < 1  # and the work done is not thrown away


def test_max_it_of_zero_leaves_the_initial_guess(solve, gallery):
    done = solve(gallery.poisson(16, 15), ksp_max_it=0, start=np.ones(240))
    assert (done.reason, done.iterations) == (MAX_IT, 0)
    assert (done.x == 1.0).all()


def test_divtol(solve, gallery):
    # x ← x + r with eigenvalues of A up to 8: the residual grows sevenfold in each step
    done = solve(gallery.poisson(16, 15), pc_type="none", ksp_analog_accelerator="none", ksp_divtol=100.0,
                 prepare=keep_history)
    assert done.reason == DTOL
    history = history_of(done)
    assert history[-1] >= 100 * history[0] > history[-2]


def test_a_growing_residual_is_refused_at_the_latest_by_stagnation(solve, gallery):
    done = solve(gallery.poisson(16, 15), pc_type="none", ksp_analog_accelerator="none", ksp_divtol=1e300,
                 ksp_analog_stagnation=7)
    assert (done.reason, done.iterations) == (STAGNATED, 7)


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_monitors_see_true_residual_norms_of_the_solution_they_can_ask_for(solve, gallery, accelerator):
    whole, seen = gallery.poisson(16, 15), []
    comm = None

    def monitor(ksp, iteration, norm):
        x = np.concatenate(comm.allgather(ksp.getSolution().array_r.copy()))
        seen.append((iteration, norm, x, ksp.buildResidual().norm()))

    def prepare(ksp):
        nonlocal comm
        comm = ksp.getComm().tompi4py()
        ksp.setMonitor(monitor)
        ksp.setConvergenceHistory()

    done = solve(whole, ksp_analog_accelerator=accelerator, prepare=prepare)
    assert [entry[0] for entry in seen] == list(range(done.iterations + 1))
    assert done.iterations >= 3
    for _, norm, x, built in seen:
        residual = done.b - whole @ x
        # 5 products and 6 sums an entry, on both sides of the comparison; the norms themselves n·eps
        rounding = 2 * 6 * EPS * np.linalg.norm(abs(whole) @ abs(x) + abs(done.b)) + done.b.size * EPS * norm
        assert norm == pytest.approx(np.linalg.norm(residual), abs=rounding)
        assert norm == pytest.approx(built, abs=rounding)
    assert history_of(done).tolist() == [entry[1] for entry in seen]
    assert done.ksp.getResidualNorm() == seen[-1][1]
    assert np.array_equal(done.x, seen[-1][2])


def test_history_is_kept_to_its_length_and_reset(solve, gallery):
    done = solve(gallery.poisson(16, 15), prepare=lambda ksp: ksp.setConvergenceHistory(3, reset=True))
    assert len(history_of(done)) == 3
    done.ksp.solve(done.rhs, done.solution)
    assert len(history_of(done)) == 3


@pytest.mark.parametrize(("answer", "reason"), [(True, ITS), (ATOL, ATOL), (DTOL, DTOL), (6, 6), (-8, -8)])
def test_a_programs_convergence_test_decides_alone(solve, gallery, answer, reason):
    calls = []

    def test(ksp, iteration, norm):
        calls.append((iteration, norm))
        return answer if iteration == 11 else 0

    done = solve(gallery.poisson(16, 15), prepare=lambda ksp: ksp.setConvergenceTest(test))
    # FP32-equivalence is reached before: the default target must not end a solve that a program judges itself
    assert (done.reason, done.iterations) == (reason, 11)
    assert [iteration for iteration, _ in calls] == list(range(12))


def test_skipping_the_convergence_test_does_all_iterations(solve, gallery):
    done = solve(gallery.poisson(16, 15), ksp_convergence_test="skip", ksp_max_it=11)
    assert (done.reason, done.iterations) == (ITS, 11)


def test_a_zero_residual_ends_a_solve_whatever_the_test_wants(solve, gallery):
    done = solve(gallery.poisson(16, 15), np.zeros(240), prepare=lambda ksp: ksp.setConvergenceTest(lambda *_: 0))
    assert (done.reason, done.iterations) == (ATOL, 0)
    done = solve(sp.csr_matrix(np.diag([1.0, 2.0, 4.0])), np.array([1.0, 1.0, 1.0]), analog_chip="ideal",
                 prepare=lambda ksp: ksp.setConvergenceTest(lambda *_: 0))
    assert done.reason == ATOL  # powers of two: every tile answer is exact
    assert done.x.tolist() == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_initial_guess(solve, gallery, accelerator):
    whole = gallery.poisson(16, 15)
    given = {"ksp_analog_accelerator": accelerator, "prepare": keep_history}
    cold = solve(whole, ksp_rtol=1e-6, **given)
    warm = solve(whole, ksp_rtol=1e-6, start=cold.x, **given)
    assert (warm.reason, warm.iterations) == (RTOL, 0)  # rtol stays relative to ‖b‖
    assert np.array_equal(warm.x, cold.x)
    wrong = solve(whole, start=1e3 * np.ones(240), **given)
    first = np.linalg.norm(wrong.b - whole @ (1e3 * np.ones(240)))
    assert history_of(wrong)[0] == pytest.approx(first, rel=240 * EPS)
    wrong.assert_fp32()


def test_without_the_flag_the_contents_of_x_are_ignored(solve, gallery, scatter):
    def prepare(ksp):
        ksp.setInitialGuessNonzero(False)

    done = solve(gallery.poisson(16, 15), start=1e30 * np.ones(240), prepare=prepare)
    done.assert_fp32()


def test_right_hand_side_and_solution_may_be_the_same_vector(solve, gallery):
    done = solve(gallery.poisson(16, 15))
    same = done.rhs.duplicate()
    done.rhs.copy(same)
    done.ksp.solve(same, same)
    x = np.concatenate(done.matrix.getComm().tompi4py().allgather(same.array_r.copy()))
    assert done.forward_error(x) <= 2.0**-23


def test_the_right_hand_side_is_not_changed(solve, gallery):
    done = solve(gallery.poisson(16, 15))
    begin, end = done.rhs.getOwnershipRange()
    assert np.array_equal(done.rhs.array_r, done.b[begin:end])


def test_repeated_solves_with_one_programming(solve, gallery, scatter):
    done = solve(gallery.poisson(16, 15))
    for k in range(4):
        done.b = np.cos(k + 0.3 * np.arange(240))
        done.rhs = scatter(done.matrix, done.b)
        done.ksp.solve(done.rhs, done.solution)
        done.__dict__.pop("x", None)
        done.__dict__.pop("residual", None)
        done.assert_fp32()
    assert done.analog.programmings == 1


def test_several_right_hand_sides_at_once(PETSc, solve, gallery):
    done = solve(gallery.poisson(16, 15))
    begin, end = done.rhs.getOwnershipRange()
    wanted = np.array([np.sin((k + 1) * 0.01 * np.arange(240)) for k in range(3)]).T + 1.0
    b = PETSc.Mat().createDense([(end - begin, 240), (None, 3)], comm=done.matrix.getComm())
    b.setUp()
    b.getDenseArray()[:, :] = wanted[begin:end]
    b.assemble()
    x = b.duplicate()
    done.ksp.matSolve(b, x)
    x = np.concatenate(done.matrix.getComm().tompi4py().allgather(x.getDenseArray().copy()))
    for k in range(3):
        done.b = wanted[:, k]
        assert done.forward_error(x[:, k]) <= 2.0**-23


def test_error_if_not_converged(PETSc, solve, gallery, options):
    # (not DIVERGED_ITS: PETSc raises no error for it in inner solves, and counts the depth of solves wrongly once
    # an error has left one)
    given = {"pc_type": "none", "ksp_analog_accelerator": "none", "ksp_divtol": 100.0}
    assert solve(gallery.poisson(16, 15), **given).reason == DTOL
    with pytest.raises(PETSc.Error) as caught:
        solve(gallery.poisson(16, 15), ksp_error_if_not_converged=None, **given)
    assert caught.value.ierr == 91  # PETSC_ERR_NOT_CONVERGED
    for name in [*given, "ksp_error_if_not_converged"]:
        options.delValue(name)
    solve(gallery.poisson(16, 15), ksp_error_if_not_converged=None).assert_fp32()


@pytest.mark.parametrize("scale", [-1.0, 2.0**-100, 2.0**100])
def test_scaling_the_matrix_changes_nothing(solve, gallery, scale):
    reference = solve(gallery.poisson(12, 12))
    done = solve(scale * gallery.poisson(12, 12))
    assert done.iterations == reference.iterations
    assert np.array_equal(scale * done.x, reference.x)  # powers of two: not one rounding differs


def test_diagonal_scaling_by_petsc(solve, gallery):
    scale = sp.diags_array(10.0 ** np.linspace(0, 3, 144))
    whole = sp.csr_matrix(scale @ gallery.poisson(12, 12) @ scale)
    done = solve(whole, ksp_rtol=1e-8, ksp_diagonal_scale=None, ksp_diagonal_scale_fix=None)
    assert done.reason == RTOL
    weights = 1 / np.sqrt(whole.diagonal())  # the tolerance holds for the system that PETSc has scaled
    assert np.linalg.norm(weights * done.residual) <= 1.001e-8 * np.linalg.norm(weights * done.b)


@pytest.mark.parametrize("guess", [{"ksp_initial_guess_knoll": None}, {"ksp_guess_type": "fischer"}])
def test_petscs_own_guesses(solve, gallery, guess):
    done = solve(gallery.poisson(12, 12), **guess)
    done.ksp.solve(done.rhs, done.solution)
    done.assert_fp32()


@pytest.mark.parametrize("chip", ["ideal", "pku2025", "rram128"])
@pytest.mark.parametrize("penalty", [1e8, 1e14, 1e20, 1e30])
def test_dirichlet_values_by_a_penalty(solve, gallery, penalty, chip):
    # a few huge rows make every normwise backward error small at once: it must not pass for a small forward error
    whole = sp.lil_array(gallery.poisson(30, 30))
    b = np.ones(900)
    held = np.arange(0, 900, 30)
    whole[held, held] = penalty
    b[held] = 2.0 * penalty
    done = solve(sp.csr_matrix(whole), b, analog_chip=chip)
    if done.reason > 0:
        assert done.forward_error() <= 2.0**-23
    else:
        assert penalty > 1e24  # scalar products of such vectors are all rounding: refused, not wrong


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 6.0])
def test_rows_and_columns_of_very_different_size(solve, gallery, power):
    scale = 10.0 ** (power * np.sin(1.7 * np.arange(300)))
    whole = sp.csr_matrix(sp.diags_array(scale) @ gallery.poisson(300) @ sp.diags_array(scale))
    done = solve(whole)
    if done.reason > 0:
        # A direct solve in FP64 is itself off by κ of the scaled matrix, 4e4, times the spread of the scaling (10^2p)
        # times rounding; the answer may differ from it by as much
        fp64 = 4e4 * 10 ** (2 * power) * 2.0**-53
        assert done.forward_error() <= 2.0**-23 + 10 * fp64
        assert power < 6.0  # fp64 > 1: whatever calls that converged is wrong
    else:
        # constants are far from near-null here, so that the coarse levels do not help; on several ranks power 2 stalls
        assert power >= 2.0

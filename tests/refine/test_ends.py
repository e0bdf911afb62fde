"""How the outer loop ends: indefinite matrices, failures, floors, zero residuals, limits."""

import numpy as np
import pytest

from analogpde.refine.status import Status

ACCELERATORS = ["none", "fgmres", "fcg", "auto"]
EACH = pytest.mark.parametrize("accelerator", ACCELERATORS)


# ---- indefinite -----------------------------------------------------------------------------------------------------


def indefinite(tools, n=30):
    values = np.linspace(0.5, 2.0, n) * np.where(np.arange(n) % 3 == 0, -1, 1)
    basis, _ = np.linalg.qr(np.random.default_rng(6).normal(size=(n, n)))
    return basis @ np.diag(values) @ basis.T


def test_fcg_refuses_an_indefinite_matrix(tools):
    matrix, b = indefinite(tools), tools.right_hand_side(30)
    status, *_ = tools.solve(tools.System(matrix, b, np.eye(30)), "fcg", steps=60, stagnation=60)
    assert status is Status.DIVERGED_INDEFINITE


def test_auto_goes_on_with_fgmres_on_an_indefinite_matrix(tools):
    matrix, b = indefinite(tools), tools.right_hand_side(30)
    system = tools.System(matrix, b, np.eye(30))
    status, x, history, _ = tools.solve(system, "auto", rtol=1e-11, stagnation=40)
    assert status is Status.CONVERGED_RTOL
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=0, atol=1e-9)
    # every correction was used, the one at the switch too
    assert len(system.corrected) == history[-1].iteration
    assert all(p.correction > 0 for p in history[1:])
    # at the switch a cycle of fgmres begins: from there the residual never grows again
    norms = [p.residual_norm for p in history]
    switch = next(k for k in range(len(norms)) if all(a >= b for a, b in zip(norms[k:], norms[k + 1:], strict=False)))
    assert switch <= 10


def test_auto_is_fcg_on_a_definite_matrix(tools):
    matrix, b = tools.poisson(6), tools.right_hand_side(36)
    m = tools.spd(36, 4.0)
    runs = [tools.solve(tools.System(matrix, b, m), name, steps=10)[3] for name in ("auto", "fcg", "fgmres")]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(np.array(runs[0]) - np.array(runs[2])).max() > 1e-6


# ---- how it ends ----------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_preconditioner_that_fails(tools, accelerator, bad):
    matrix, b = tools.poisson(4), tools.right_hand_side(16)
    inverse = np.linalg.inv(matrix)
    calls = []

    def breaks(r):
        calls.append(1)
        x = 0.9 * inverse @ r
        if len(calls) == 3:
            x[5] = bad
        return x

    with np.errstate(invalid="ignore"):
        status, x, history, iterates = tools.solve(tools.System(matrix, b, breaks), accelerator, rtol=0.0, steps=99)
    # a perfect preconditioner may end an accelerated solve before: then the third call comes at the precision floor
    assert status is Status.DIVERGED_PC_FAILED
    assert np.isfinite(x).all()  # the last good iterate is what the caller gets
    np.testing.assert_array_equal(x, iterates[-1])
    assert history[-1].iteration == 2


@EACH
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["b", "start", "matrix"])
def test_not_a_number(tools, accelerator, bad, where):
    matrix, b, start = tools.poisson(4), tools.right_hand_side(16), np.zeros(16)
    {"b": b, "start": start, "matrix": matrix[0]}[where][1] = bad
    system = tools.System(matrix, b, np.eye(16))
    with np.errstate(invalid="ignore"):
        status, _, history, _ = tools.solve(system, accelerator, start=start)
    assert status is Status.DIVERGED_NANORINF
    assert history == []
    assert system.corrected == []


@EACH
def test_stagnation_at_the_floor_of_fp64(tools, accelerator):
    matrix, b = tools.spd(30, 1e6), tools.right_hand_side(30)
    system = tools.System(matrix, b, np.linalg.inv(matrix))
    status, x, history, _ = tools.solve(system, accelerator, rtol=0.0, stagnation=7)
    assert status is Status.DIVERGED_STAGNATED
    norms = [p.residual_norm for p in history]
    best = min(range(len(norms)), key=lambda k: norms[k])
    assert len(norms) - 1 - best <= 7
    assert np.linalg.norm(b - matrix @ x) < 1e-9 * np.linalg.norm(b)


@EACH
def test_stagnation_of_useless_corrections(tools, accelerator):
    matrix, b = tools.poisson(4), tools.right_hand_side(16)
    for useless in (np.zeros((16, 16)), 1e-9 * np.eye(16)):
        if accelerator != "none" and useless.any():
            continue  # an accelerator finds the right length of a short step
        status, x, history, _ = tools.solve(tools.System(matrix, b, useless), accelerator, stagnation=5)
        assert status is Status.DIVERGED_STAGNATED
        assert history[-1].iteration == 5
        assert np.linalg.norm(x) < 1e-6


def test_slow_is_not_stagnated(tools):
    # falls by 0.98 a step: 0.9 of the best every six steps, so twelve are enough patience
    matrix, b = np.eye(5), tools.right_hand_side(5)
    status, *_ = tools.solve(tools.System(matrix, b, 0.02 * np.eye(5)), rtol=1e-2, stagnation=12)
    assert status is Status.CONVERGED_RTOL
    status, *_ = tools.solve(tools.System(matrix, b, 0.005 * np.eye(5)), rtol=1e-2, stagnation=12)
    assert status is Status.DIVERGED_STAGNATED


@pytest.mark.parametrize("accelerator", ["fcg", "auto"])
def test_conjugate_gradients_may_let_the_residual_rise(tools, accelerator):
    # A simply supported beam under its own weight: the residual rises a hundred times before the energy is spent.
    # Without tiles conjugate gradients take about as many steps as there are unknowns.
    n = 40
    line = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    matrix, b = line @ line, np.ones(n)
    status, x, history, _ = tools.solve(tools.System(matrix, b, np.eye(n)), accelerator, rtol=1e-8, stagnation=10)
    assert status is Status.CONVERGED_RTOL
    assert np.linalg.norm(b - matrix @ x) <= 1e-8 * np.linalg.norm(b)
    norms = [p.residual_norm for p in history]
    assert max(norms) > 10 * norms[0] and min(norms[1:11]) > norms[0]  # ten steps without a smaller one
    # the patience ends: four times as long
    system = tools.System(matrix, b, np.eye(n))
    status, _, history, _ = tools.solve(system, accelerator, rtol=1e-8, stagnation=2)
    assert status is Status.DIVERGED_STAGNATED and history[-1].iteration == 8


def test_divergence_is_stagnation_too(tools):
    matrix, b = np.eye(5), tools.right_hand_side(5)
    status, _, history, _ = tools.solve(tools.System(matrix, b, 2.5 * np.eye(5)), "none", stagnation=4)
    assert status is Status.DIVERGED_STAGNATED
    assert history[-1].iteration == 4


@EACH
def test_largest_number_of_iterations(tools, accelerator):
    matrix, b = tools.poisson(6), tools.right_hand_side(36)
    system = tools.System(matrix, b, 0.1 * np.eye(36))
    status, _, history, _ = tools.solve(system, accelerator, max_iterations=3)
    assert status is Status.DIVERGED_ITS
    assert [p.iteration for p in history] == [0, 1, 2, 3]
    assert len(system.corrected) == 3


@EACH
@pytest.mark.parametrize("what", ["zero right-hand side", "exact start"])
def test_a_zero_residual_needs_no_step(tools, accelerator, what):
    matrix = tools.poisson(4)
    start = np.zeros(16) if what == "zero right-hand side" else np.ones(16)
    system = tools.System(matrix, matrix @ start, np.linalg.inv(matrix))
    status, x, history, _ = tools.solve(system, accelerator, start=start)
    assert status is Status.CONVERGED_RTOL
    np.testing.assert_array_equal(x, start)
    assert (len(history), history[0].residual_norm, system.corrected) == (1, 0.0, [])


@EACH
@pytest.mark.parametrize("correct", [np.eye(16), np.zeros((16, 16))], ids=["identity", "zero"])
def test_a_zero_residual_does_no_harm_where_steps_are_counted(tools, accelerator, correct):
    # a fixed number of steps, as a smoother does them: from a zero residual they are zero, not 0/0
    system = tools.System(tools.poisson(4), np.zeros(16), correct)
    status, x, history, _ = tools.solve(system, accelerator, steps=5)
    assert status is Status.CONVERGED_ITS
    assert not x.any()
    assert history[-1].iteration == 5


@EACH
def test_the_last_direction_leads_on(tools, accelerator):
    # exact after one step (happy breakdown), and asked for more: rounding errors must not be blown up
    matrix, b = tools.poisson(4), tools.right_hand_side(16)
    status, x, _, _ = tools.solve(tools.System(matrix, b, np.linalg.inv(matrix)), accelerator, steps=8, stagnation=50)
    assert status is Status.CONVERGED_ITS
    assert np.linalg.norm(x - np.linalg.solve(matrix, b)) < 1e-13 * np.linalg.norm(x)

"""The outer loop and its accelerators on small dense systems."""

import numpy as np
import pytest

from analogpde.errors import InvalidInput
from analogpde.refine.loop import FlexibleGmres, Progress, make_accelerator, refine
from analogpde.refine.status import Status

ACCELERATORS = ["none", "fgmres", "fcg", "auto"]
EACH = pytest.mark.parametrize("accelerator", ACCELERATORS)


# ---- they solve -----------------------------------------------------------------------------------------------------

SYSTEMS = {
    "poisson": lambda t: t.poisson(8),
    "ill-conditioned": lambda t: t.spd(40, 1e5),
    "negative": lambda t: -t.spd(40, 50.0),
    "one": lambda t: np.array([[4.0]]),
}


@EACH
@pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
@pytest.mark.parametrize("error", [0.0, 0.3, 0.7])
def test_symmetric_systems(tools, accelerator, system, error):
    matrix = system(tools)
    n = len(matrix)
    symmetric = tools.spd(n, (1 + error) / (1 - error), seed=5) * (1 + error) if n > 1 else np.array([[1 + error]])
    # M = R⁻¹ S R⁻ᵀ with S's eigenvalues in [1 − error, 1 + error]: symmetric, and A M has the eigenvalues of S
    values, vectors = np.linalg.eigh(matrix)
    root = vectors / np.sqrt(np.abs(values))
    made = np.sign(values[0]) * root @ symmetric @ root.T
    b = tools.right_hand_side(n)
    status, x, history, _ = tools.solve(tools.System(matrix, b, made), accelerator, rtol=1e-11)
    assert status is Status.CONVERGED_RTOL
    assert np.linalg.norm(b - matrix @ x) <= 1e-11 * np.linalg.norm(b)
    assert history[-1].iteration <= (1 if error == 0 else 90)


@pytest.mark.parametrize("accelerator", ["none", "fgmres"])
@pytest.mark.parametrize("error", [0.05, 0.5, 0.8])
def test_unsymmetric_systems_with_a_contraction(tools, accelerator, error):
    matrix, b = tools.unsymmetric(40), tools.right_hand_side(40)
    status, x, history, _ = tools.solve(tools.System(matrix, b, tools.inexact(matrix, error)), accelerator)
    assert status is Status.CONVERGED_RTOL
    assert np.linalg.norm(b - matrix @ x) <= 1e-12 * np.linalg.norm(b)
    # ‖r_k‖ ≤ error^k ‖r_0‖ for plain refinement, and no worse for the minimiser (rounding 1e-14)
    for p in history:
        assert p.residual_norm <= (error**p.iteration + 1e-14) * history[0].residual_norm


def test_plain_refinement_is_the_stationary_iteration(tools):
    matrix, b = tools.poisson(5), tools.right_hand_side(25)
    m = tools.inexact(matrix, 0.4)
    _, _, _, iterates = tools.solve(tools.System(matrix, b, m), steps=6)
    x = np.zeros(25)
    for iterate in iterates:
        np.testing.assert_allclose(iterate, x, rtol=0, atol=1e-14)
        x = x + m @ (b - matrix @ x)


@EACH
@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_noise_that_changes_every_time_costs_no_accuracy(tools, accelerator, noise):
    matrix, b = tools.poisson(8), tools.right_hand_side(64)
    inverse, rng = np.linalg.inv(matrix), np.random.default_rng(3)

    def noisy(r):
        x = inverse @ r
        return x + noise * np.linalg.norm(x) / 8 * rng.normal(size=64)

    status, x, _, _ = tools.solve(tools.System(matrix, b, noisy), accelerator, rtol=1e-13, stagnation=40)
    assert status is Status.CONVERGED_RTOL
    assert np.linalg.norm(x - inverse @ b) < 1e-12 * np.linalg.norm(x)


@EACH
def test_starts_where_it_is_told(tools, accelerator):
    matrix, b = tools.poisson(6), tools.right_hand_side(36)
    start = tools.right_hand_side(36, seed=9)
    status, x, history, iterates = tools.solve(tools.System(matrix, b, np.linalg.inv(matrix)), accelerator, start=start)
    assert status is Status.CONVERGED_RTOL
    np.testing.assert_array_equal(iterates[0], start)
    assert history[0].residual_norm == pytest.approx(np.linalg.norm(b - matrix @ start))
    _, _, again, _ = tools.solve(tools.System(matrix, b, np.linalg.inv(matrix)), accelerator, start=x)
    assert [p.iteration for p in again] == [0]


# ---- optimality -----------------------------------------------------------------------------------------------------


def krylov(operator, first, k):
    """Orthonormal basis of span{v, Bv, …, B^(k−1) v}."""
    basis = [first / np.linalg.norm(first)]
    while len(basis) < k:
        w = operator @ basis[-1]
        for v in basis * 2:
            w -= (v @ w) * v
        basis.append(w / np.linalg.norm(w))
    return np.array(basis).T


def test_fgmres_minimises_the_residual(tools):
    matrix, b = tools.unsymmetric(30, seed=4), tools.right_hand_side(30)
    m = tools.inexact(matrix, 3.0)  # no contraction at all: plain refinement diverges
    _, _, history, _ = tools.solve(tools.System(matrix, b, m), "fgmres", steps=15)
    for k in range(1, 16):
        span = m @ krylov(matrix @ m, b, k)
        best = np.linalg.lstsq(matrix @ span, b, rcond=None)[0]
        # two orthogonal bases of one space, in FP64: 1e-10 of the first residual
        assert abs(history[k].residual_norm - np.linalg.norm(b - matrix @ span @ best)) < 1e-10 * np.linalg.norm(b)
    assert history[-1].residual_norm < 0.9 * history[0].residual_norm
    status, *_ = tools.solve(tools.System(matrix, b, m), "none", steps=15, stagnation=12)
    assert status is Status.DIVERGED_STAGNATED


def test_fgmres_minimises_over_corrections_that_change(tools):
    # the flexible property: over the span of what the preconditioner really returned
    matrix, b = tools.unsymmetric(25), tools.right_hand_side(25)
    inverse, rng = np.linalg.inv(matrix), np.random.default_rng(1)
    made = []

    def changing(r):
        made.append(inverse @ r + 0.5 * np.linalg.norm(inverse @ r) / 5 * rng.normal(size=25))
        return made[-1]

    _, _, history, _ = tools.solve(tools.System(matrix, b, changing), "fgmres", steps=8)
    for k in range(1, 9):
        span = np.array(made[:k]).T
        best = np.linalg.lstsq(matrix @ span, b, rcond=None)[0]
        assert abs(history[k].residual_norm - np.linalg.norm(b - matrix @ span @ best)) < 1e-12 * np.linalg.norm(b)


def test_fgmres_keeps_its_basis_orthogonal(tools):
    # a good preconditioner makes A M v nearly v: what is left after one orthogonalisation is mostly rounding
    matrix, b = tools.unsymmetric(30), tools.right_hand_side(30)
    accelerator = FlexibleGmres(30, 8)
    system = tools.System(matrix, b, tools.inexact(matrix, 1e-6))
    for _ in range(2):
        correction = system.correct(accelerator.target(system, b))
        accelerator.update(system, b, correction)
    basis = accelerator._v[:3]
    assert np.abs(basis @ basis.T - np.eye(3)).max() < 1e-13


def test_fgmres_finishes_in_n_steps(tools):
    matrix, b = tools.unsymmetric(12), tools.right_hand_side(12)
    status, _, history, _ = tools.solve(tools.System(matrix, b, np.eye(12)), "fgmres", rtol=1e-12)
    assert status is Status.CONVERGED_RTOL
    assert history[-1].iteration <= 12


@pytest.mark.parametrize("restart", [1, 2, 5])
def test_fgmres_restarts_from_the_true_residual(tools, restart):
    matrix, b = tools.unsymmetric(30), tools.right_hand_side(30)
    m = tools.inexact(matrix, 0.6)
    _, _, history, iterates = tools.solve(tools.System(matrix, b, m), "fgmres", steps=3 * restart, restart=restart)
    for cycle in range(3):
        x0 = iterates[cycle * restart]
        r = b - matrix @ x0
        span = m @ krylov(matrix @ m, r, restart)
        best = np.linalg.lstsq(matrix @ span, r, rcond=None)[0]
        norm = history[(cycle + 1) * restart].residual_norm
        assert norm == pytest.approx(np.linalg.norm(r - matrix @ span @ best), rel=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_fcg_minimises_the_energy_norm(tools, sign):
    matrix, b = sign * tools.spd(30, 200.0), tools.right_hand_side(30)
    m = sign * tools.spd(30, 20.0, seed=7)
    _, _, _, iterates = tools.solve(tools.System(matrix, b, m), "fcg", steps=12)
    exact = np.linalg.solve(matrix, b)

    def energy(e):
        return np.sqrt(sign * e @ matrix @ e)

    for k in range(1, 13):
        span = krylov(m @ matrix, m @ b, k)
        best = np.linalg.solve(span.T @ matrix @ span, span.T @ b)
        assert energy(iterates[k] - exact) == pytest.approx(energy(span @ best - exact), rel=1e-6, abs=1e-12)


def test_fcg_with_a_short_memory_still_converges(tools):
    matrix, b = tools.poisson(8), tools.right_hand_side(64)
    m = tools.inexact(matrix, 0.3)
    for restart in (1, 2, 3):
        status, *_ = tools.solve(tools.System(matrix, b, 0.5 * (m + m.T)), "fcg", restart=restart)
        assert status is Status.CONVERGED_RTOL


# ---- what the test sees ---------------------------------------------------------------------------------------------


@EACH
def test_progress_is_the_truth(tools, accelerator):
    matrix, b = tools.poisson(5), tools.right_hand_side(25)
    m = tools.inexact(matrix, 0.4)
    _, _, history, iterates = tools.solve(tools.System(matrix, b, 0.5 * (m + m.T)), accelerator, steps=6)
    for k, (p, x) in enumerate(zip(history, iterates, strict=True)):
        assert p.iteration == k
        assert p.residual_norm == pytest.approx(np.linalg.norm(b - matrix @ x), rel=1e-12)
        assert p.solution_norm == pytest.approx(np.linalg.norm(x), rel=1e-14)
        step = np.linalg.norm(x - iterates[k - 1]) / np.linalg.norm(x) if k else 0.0
        assert p.correction == pytest.approx(step, rel=1e-10)


def test_the_machine_residual_is_corrected_but_the_true_one_judged(tools):
    matrix, b = tools.poisson(4), tools.right_hand_side(16)

    class Coarse(tools.System):
        """Forms residuals to 8 bits of the size of b: good for a while, then a floor."""

        def machine_residual(self, x, true):
            return np.rint(true * 256) / 256

    status, x, history, _ = tools.solve(Coarse(matrix, b, np.linalg.inv(matrix)), "none", rtol=1e-12)
    assert status is Status.DIVERGED_STAGNATED
    true = np.linalg.norm(b - matrix @ x)
    assert history[-1].residual_norm == pytest.approx(true)
    assert 0 < true <= 4 * 0.5 / 256  # √16 entries of at most half a step


def test_inner_products_are_summed_over_ranks(tools):
    # two copies of one system, each "rank" seeing its own: sums must go through `sum`, or the steps differ
    matrix, b = tools.poisson(4), tools.right_hand_side(16)
    m = tools.inexact(matrix, 0.5)
    m = 0.5 * (m + m.T)

    class Half(tools.System):
        def sum(self, values):
            return 2 * values

    for accelerator in ACCELERATORS:
        one, _, single, iterates = tools.solve(tools.System(matrix, b, m), accelerator, steps=6)
        two, _, double, halves = tools.solve(Half(matrix, b, m), accelerator, steps=6)
        assert one is two
        # the minimisers of two equal halves are those of each
        np.testing.assert_allclose(halves, iterates, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose([p.residual_norm for p in double], [np.sqrt(2) * p.residual_norm for p in single],
                                   rtol=1e-6, atol=1e-12)


def test_fgmres_shows_the_tiles_vectors_of_the_size_of_the_residual(tools):
    matrix, b = tools.unsymmetric(20), 1e-30 * tools.right_hand_side(20)
    system = tools.System(matrix, b, tools.inexact(matrix, 0.5))
    status, *_ = tools.solve(system, "fgmres", rtol=1e-10)
    assert status is Status.CONVERGED_RTOL
    for seen in system.corrected:
        assert np.linalg.norm(seen) == pytest.approx(np.linalg.norm(b), rel=1e-10)


def test_memory_grows_only_as_far_as_it_is_used(tools):
    accelerator = FlexibleGmres(10, 1000)
    system = tools.System(np.eye(10), np.ones(10), 0.5 * np.eye(10))
    seen = []
    refine(system, np.zeros(10), accelerator, test=lambda p: seen.append(p) or (
        Status.CONVERGED_ITS if p.iteration == 3 else None))
    assert len(accelerator._v) < 50
    assert all(isinstance(p, Progress) for p in seen)


def test_unknown_accelerator():
    with pytest.raises(InvalidInput, match=r"accelerator: got 'gcr'; allowed: auto \| none \| fgmres \| fcg"):
        make_accelerator("gcr", 5, 30)


@pytest.mark.parametrize("seed", [1, 2])
def test_stiff_islands_do_not_break_conjugate_gradients(tools, seed):
    # Checkerboard of contrast c = 3e6 on 24 × 24 cells. Rounding puts eps c ‖x‖ of each step back along old directions;
    # left there it grew until the solve broke down at 1e-8 to 5e-8. The floor of the residual itself, eps ‖A‖‖x‖ with
    # ‖A‖ = 8c, ‖x‖ ≈ ‖b‖ is 5e-9.
    side, contrast = 24, 3e6
    k = np.where(np.add.outer(np.arange(side) // 6, np.arange(side) // 6) % 2, contrast, 1.0)
    matrix = np.zeros((side**2, side**2))
    for i, j in np.ndindex(side, side):
        for a, b in ((i + 1, j), (i, j + 1), (i - 1, j), (i, j - 1)):
            inside = 0 <= a < side and 0 <= b < side
            coupling = 2 * k[i, j] * k[a, b] / (k[i, j] + k[a, b]) if inside else k[i, j]
            matrix[i * side + j, i * side + j] += coupling
            if inside:
                matrix[i * side + j, a * side + b] -= coupling
    inverse, root = np.linalg.inv(matrix), np.linalg.inv(np.linalg.cholesky(matrix)).T
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(side**2)

    def noisy(r):  # an error of 0.3 in the energy norm
        d = inverse @ r
        return d + 0.3 * root @ rng.standard_normal(len(r)) * np.sqrt(r @ d / len(r))

    status, _, history, _ = tools.solve(tools.System(matrix, b, noisy), "auto", rtol=1e-8, max_iterations=200)
    assert status is Status.CONVERGED_RTOL
    assert history[-1].iteration <= 60

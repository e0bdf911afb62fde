"""Modes that Krylov methods overlook for a while: no solve may call itself converged meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as linalg

pytestmark = pytest.mark.mpi
N = 24


def closed_flow(gallery, peclet, reaction):
    """Diffusion and upwind convection in a closed vortex, no flux through the walls, a little reaction.

    Constants are the slow mode: their eigenvalue is the reaction, the next is (π/N)² = 0.017.
    """
    rows = sp.lil_matrix((N * N, N * N))

    def psi(i, j):
        return np.sin(np.pi * i / N) * np.sin(np.pi * j / N)

    for i in range(N):
        for j in range(N):
            for k, m, flux in ((i + 1, j, psi(i + 1, j + 1) - psi(i + 1, j)),
                               (i, j + 1, psi(i, j + 1) - psi(i + 1, j + 1))):
                if k < N and m < N:
                    a, b = (i * N + j, k * N + m) if flux > 0 else (k * N + m, i * N + j)
                    rows[a, a] += peclet * abs(flux)
                    rows[b, a] -= peclet * abs(flux)
    return (gallery.neumann(N, N) + rows.tocsr() + reaction * sp.eye_array(N * N)).tocsr()


# Three solves that ended up to 80 times above 2^-23: the right-hand side has a billionth of the constant, which is
# most of the solution. Neither rates nor singular values show it; the residual's share of the constant does.
@pytest.mark.parametrize(("peclet", "reaction", "kind", "transposed", "chip"), [
    (10, 1e-6, "checkered", True, "sram64"), (10, 1e-6, "random", True, "pku2025"),
    (100, 1e-5, "random", True, "pku2025")])
def test_a_share_too_small_to_be_seen_by_the_solver(solve, gallery, peclet, reaction, kind, transposed, chip):
    whole = closed_flow(gallery, peclet, reaction)
    whole = whole.T.tocsr() if transposed else whole
    row = np.arange(N * N)
    if kind == "random":
        b = np.random.default_rng(5).standard_normal(N * N)
        b += 1e-8 - b.mean()
    else:
        b = (-1.0) ** (row // N + row % N) + 1e-9
    done = solve(whole, b, pc_analog_levels=1, analog_chip=chip)
    assert done.reason > 0 or done.reason == -5  # right, or refused
    if done.reason > 0:
        exact = linalg.spsolve(whole.tocsc(), b)
        assert np.linalg.norm(done.x - exact) <= 1.1 * 2.0**-23 * np.linalg.norm(exact)


# Each ended 4 to 3000 times above 2^-23, four steps after a restart, before the smallest singular value was watched.
@pytest.mark.parametrize(("peclet", "reaction", "given"), [
    (10, 1e-5, {"pc_analog_levels": 1}),
    (100, 1e-6, {"pc_analog_levels": 1}),
    (100, 1e-6, {"pc_analog_levels": 1, "analog_seed": 1}),
    (100, 1e-3, {"pc_analog_levels": 1, "analog_chip": "sram64"}),
    (1, 1e-7, {"analog_chip": "pku2025"})])
def test_a_restart_does_not_hide_the_slow_mode(solve, gallery, peclet, reaction, given):
    whole = closed_flow(gallery, peclet, reaction)
    row = np.arange(N * N)
    b = (-1.0) ** (row // N + row % N) + 1e-6
    done = solve(whole, b, **given)
    assert done.reason > 0 or done.reason == -5  # right, or refused
    if done.reason > 0:
        exact = linalg.spsolve(whole.tocsc(), b)
        # the reference itself: κ ≤ 1e8 times FP64's 1e-16 is a tenth of 2^-23
        assert np.linalg.norm(done.x - exact) <= 1.1 * 2.0**-23 * np.linalg.norm(exact)


def almost_singular(gallery, m, relative):
    """The Laplacian less all but `relative` of its lowest eigenvalue, and the mode that is left with hardly any."""
    line = np.sin(np.pi * np.arange(1, m + 1) / (m + 1))
    mode = np.outer(line, line).ravel()
    lowest = 4 - 4 * np.cos(np.pi / (m + 1))
    whole = sp.csr_matrix(gallery.poisson(m, m) - (1 - relative) * lowest * sp.eye_array(m * m))
    return whole, mode / np.linalg.norm(mode)


# A mode that is neither constant nor in b: the tiles' noise brings it in, and ‖A x − b‖ does not see it. Each ended 5
# to 4e5 times above 2^-23 before such modes were looked for. One tile; three levels; one level.
@pytest.mark.parametrize(("m", "relative", "given"), [
    (8, 1e-7, {}), (8, 1e-6, {"analog_chip": "ideal"}), (12, 3e-8, {}), (24, 3e-8, {}),
    (32, 3e-8, {"analog_chip": "pku2025"}), (16, 1e-7, {"pc_analog_levels": 1})])
def test_a_mode_that_nothing_tells_of_is_looked_for(solve, gallery, m, relative, given):
    whole, mode = almost_singular(gallery, m, relative)
    exact = np.random.default_rng(0).standard_normal(m * m)
    exact -= mode * (mode @ exact)
    done = solve(whole, whole @ exact, **given)
    assert done.reason > 0 or done.reason == -5  # right, or refused
    if done.reason > 0:
        # b itself has rounding of 1e-16 |A||x| along the mode, of eigenvalue λ ≥ 3e-8 · 0.018: an error of 2e-7 at most
        size = np.linalg.norm(exact)
        rounding = 2.0**-53 * np.linalg.norm(abs(whole) @ abs(exact)) / abs(mode @ whole @ mode)
        assert np.linalg.norm(done.x - exact) <= 2.0**-23 * size + rounding


# Tiles that were programmed for a harmless matrix told that this one is harmless, too: six of eight seeds ended with an
# error of a third.
@pytest.mark.parametrize("frozen", ["reuse", "never", "other operator"])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_tiles_of_another_matrix_do_not_vouch_for_this_one(solve, gallery, distribute, frozen, seed):
    m, relative = 60, 1e-8
    whole, mode = almost_singular(gallery, m, relative)
    harmless = sp.csr_matrix(whole + 0.02 * sp.eye_array(m * m))
    x = np.linspace(0, 1, m)
    exact = np.outer(np.cos(np.pi * x), np.cos(2 * np.pi * x)).ravel()
    b = exact - mode * (mode @ exact) + 1e-9 * np.linalg.norm(exact) * mode
    never = {"pc_analog_reprogram": "never"} if frozen == "never" else {}
    done = solve(harmless, b, analog_seed=seed, **never)
    matrix = distribute(whole)
    if frozen == "other operator":
        done.ksp.setOperators(matrix, done.matrix)
    else:
        done.ksp.getPC().setReusePreconditioner(frozen == "reuse")
        done.ksp.setOperators(matrix)
    done.ksp.solve(done.rhs, done.solution)
    got = np.concatenate(matrix.getComm().tompi4py().allgather(done.solution.array_r.copy()))
    reason = done.ksp.getConvergedReason()
    assert reason > 0 or reason == -5  # right, or refused
    if reason > 0:
        exact = linalg.spsolve(whole.tocsc(), b)
        rounding = 2.0**-53 * np.linalg.norm(abs(whole) @ abs(exact)) / abs(mode @ whole @ mode)  # along the mode
        assert np.linalg.norm(got - exact) <= 2.0**-23 * np.linalg.norm(exact) + rounding


def test_two_regions_hardly_tied(solve, gallery):
    m, tie = 16, 1e-9
    whole = sp.block_diag([gallery.poisson(m, m), gallery.neumann(m, m)]).tolil()
    for i, j, value in ((3, 3, tie), (m * m + 5, m * m + 5, tie), (3, m * m + 5, -tie), (m * m + 5, 3, -tie)):
        whole[i, j] += value
    b = np.random.default_rng(0).standard_normal(2 * m * m)
    b[m * m:] -= b[m * m:].mean()
    done = solve(whole.tocsr(), b)
    assert done.reason > 0 or done.reason == -5
    if done.reason > 0:  # never seen: κ = 3e12 is beyond what FP64 can prove
        assert done.forward_error() <= 2.0**-23


@pytest.mark.parametrize("exponent", [8, 10])
def test_what_leaves_most_of_b_is_not_converged(solve, gallery, exponent):
    # D A D: every norm sees the large rows only
    scale = 10.0 ** np.random.default_rng(3).uniform(-exponent, exponent, 400)
    whole = sp.csr_matrix(sp.diags_array(scale) @ gallery.poisson(20, 20) @ sp.diags_array(scale))
    done = solve(whole, np.ones(400), ksp_divtol=1e60, ksp_max_it=300)
    assert done.reason < 0 or done.relative_residual <= 0.1


def hilbert(n):
    """The Hilbert matrix: κ is 2e7 at n = 6, 1.7e16 at n = 12; from n = 13 on it is singular to FP64."""
    return sp.csr_matrix(1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0))


@pytest.mark.parametrize(("n", "chip", "scale"), [
    (6, "ideal", 1.0), (6, "rram128", 1.0), (12, "ideal", 1.0), (14, "rram128", 1.0), (14, "ideal", 1e170),
    (14, "rram128", 1e-170), (6, "rram128", 1e-170)])
def test_what_rounding_hides_is_not_called_converged(solve, n, chip, scale):
    """With b = A 1 the answer is known, and where κ 2^-53 is above 2^-23 FP64 cannot tell it from its neighbours."""
    whole = hilbert(n) * scale
    done = solve(whole, whole @ np.ones(n), analog_chip=chip)
    if n == 6:  # κ 2^-53 = 2e-9, b's rounding included
        assert done.reason > 0
        assert np.linalg.norm(done.x - 1.0) <= 2.0**-23 * np.sqrt(n)
    else:
        assert done.reason < 0


def test_constants_without_a_null_space_are_no_hidden_mode(solve, gallery):
    """A consistent Neumann problem on one level: the search finds the constants, of which everybody knows."""
    whole = gallery.neumann(14, 13)
    b = np.random.default_rng(3).standard_normal(182)
    done = solve(whole, b - b.mean(), pc_analog_levels=1, analog_chip="rram128")
    assert done.reason > 0
    exact = np.linalg.lstsq(whole.toarray(), done.b)[0]
    # with the smallest eigenvalue but one 0.05 lstsq itself is right to 1e-13
    assert np.linalg.norm(done.x - done.x.mean() - exact) <= 2.0**-23 * np.linalg.norm(exact)


@pytest.mark.parametrize(("n", "chip"), [(40, "pku2025"), (46, "rram128"), (48, "rram128")])
@pytest.mark.parametrize("diagonal", [0.3, 0.5])
@pytest.mark.parametrize("transposed", [False, True])
def test_left_and_right_slow_modes_that_hardly_meet(solve, n, chip, diagonal, transposed):
    """Bidiagonal, κ ≈ diagonal^−n: the slow mode sits at one end and what A makes of it at the other.

    These ended up to 3000 times the answer away from it, called converged, while only the right mode was asked.
    """
    whole = sp.csr_matrix(sp.diags_array([np.full(n, diagonal), np.ones(n - 1)], offsets=[0, 1]))
    whole = whole.T.tocsr() if transposed else whole
    done = solve(whole, whole @ np.ones(n), analog_chip=chip)
    assert done.reason < 0 or np.linalg.norm(done.x - 1.0) <= 2.0**-23 * np.sqrt(n)


# Integers: the residual becomes exactly zero, and said nothing of an error of 2e-3 (κ = 9e12). A singular one was
# called converged, too.
@pytest.mark.parametrize("shift", [2.0**-40, 0.0])
@pytest.mark.parametrize("given", [{}, {"analog_chip": "pku2025"}, {"analog_chip": "pku2025", "pc_analog_levels": 1}])
def test_a_residual_of_zero_proves_nothing_of_a_nearly_singular_matrix(solve, shift, given):
    m = 8
    whole = sp.csr_matrix(np.ones((m, m)) + shift * np.eye(m))
    done = solve(whole, np.full(m, float(m)), **given)
    assert done.reason < 0 or np.linalg.norm(done.x - m / (m + shift)) <= 2.0**-23 * np.sqrt(m)


def test_a_residual_of_zero_is_enough_for_others(solve):
    done = solve(sp.csr_matrix(np.diag([2.0, 4.0, 8.0])), np.array([2.0, 4.0, 8.0]), start=np.ones(3))
    assert done.reason > 0
    assert done.iterations == 0

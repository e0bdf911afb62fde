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


@pytest.mark.parametrize("exponent", [8, 10])
def test_what_leaves_most_of_b_is_not_converged(solve, gallery, exponent):
    # D A D: every norm sees the large rows only
    scale = 10.0 ** np.random.default_rng(3).uniform(-exponent, exponent, 400)
    whole = sp.csr_matrix(sp.diags_array(scale) @ gallery.poisson(20, 20) @ sp.diags_array(scale))
    done = solve(whole, np.ones(400), ksp_divtol=1e60, ksp_max_it=300)
    assert done.reason < 0 or done.relative_residual <= 0.1

"""Singular systems: with a null space attached the answer is the right one, without it no wrong 'converged'."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

pytestmark = pytest.mark.mpi

EPS = np.finfo(float).eps
SHAPES = [(40,), (300,), (14, 13), (7, 6, 5)]  # one tile; several; two and three dimensions


def consistent(n):
    """A right-hand side that sums to zero up to rounding."""
    b = np.sin(0.7 * np.arange(n)) + 0.01 * np.arange(n)
    return b - b.mean()


@pytest.fixture
def constants(PETSc):
    """A maker of null spaces of constants."""
    return lambda matrix: PETSc.NullSpace().create(constant=True, comm=matrix.getComm())


@pytest.fixture
def singular(distribute, constants):
    """A maker of matrices with the null space of constants attached."""

    def make(whole):
        matrix = distribute(whole)
        matrix.setNullSpace(constants(matrix))
        return matrix

    return make


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chip", ["ideal", "pku2025", "rram128", "sram64"])
def test_neumann(solve, gallery, singular, shape, chip):
    whole = gallery.neumann(*shape)
    n = whole.shape[0]
    done = solve(whole, consistent(n), matrix=singular(whole), analog_chip=chip)
    assert done.reason > 0
    # each correction leaves the projection with a mean of at most about eps times its own norm
    assert abs(done.x.sum()) / np.sqrt(n) <= 4 * EPS * (done.iterations + 1) * np.sqrt(n) * np.linalg.norm(done.x)
    exact = np.linalg.lstsq(whole.toarray(), done.b)[0]  # of least norm: orthogonal to the constants
    assert np.linalg.norm(done.x - exact) <= 2.0**-23 * np.linalg.norm(exact)
    assert done.backward_error <= 2.0**-24


def test_the_tile_of_a_singular_matrix_is_grounded(solve, gallery, singular):
    from analogpde.petsc import session

    whole = gallery.neumann(40)
    done = solve(whole, consistent(40), matrix=singular(whole), analog_chip="ideal", prefix="g_")
    assert session().solves["g_"].operations.tiles_reprogrammed == 0  # stable at once, without a shift
    # the 39 × 39 rest has κ = 2.5e3: its float32 inverse is right to about 2.5e3·2^-24, and two or three steps to 2^-26
    assert done.iterations <= 4


@pytest.mark.parametrize("accelerator", ["none", "fcg", "fgmres"])
def test_every_accelerator_keeps_out_of_the_null_space(solve, gallery, singular, accelerator):
    whole = gallery.neumann(14, 13)
    done = solve(whole, consistent(182), matrix=singular(whole), ksp_analog_accelerator=accelerator)
    exact = np.linalg.lstsq(whole.toarray(), done.b)[0]
    assert np.linalg.norm(done.x - exact) <= 2.0**-23 * np.linalg.norm(exact)


@pytest.mark.parametrize("levels", [1, 10])
def test_a_null_space_given_as_a_vector(PETSc, solve, gallery, distribute, scatter, levels):
    weights = 1.0 + 0.5 * np.cos(0.2 * np.arange(182))  # D A D, whose null vector is D⁻¹1
    whole = sp.csr_matrix(sp.diags_array(weights) @ gallery.neumann(14, 13) @ sp.diags_array(weights))
    null = 1 / weights / np.linalg.norm(1 / weights)
    matrix = distribute(whole)
    matrix.setNullSpace(PETSc.NullSpace().create(vectors=[scatter(matrix, null)], comm=matrix.getComm()))
    b = consistent(182)
    b -= null * (null @ b)
    done = solve(whole, b, matrix=matrix, pc_analog_levels=levels)
    assert done.reason > 0
    assert abs(null @ done.x) <= 4 * EPS * (done.iterations + 1) * np.sqrt(182) * np.linalg.norm(done.x)
    exact = np.linalg.lstsq(whole.toarray(), b)[0]
    assert np.linalg.norm(done.x - exact) <= 2.0**-23 * np.linalg.norm(exact)


def test_the_transpose_null_space_makes_the_right_hand_side_consistent(PETSc, solve, gallery, singular, scatter):
    scale = 1.0 + 0.5 * np.sin(0.3 * np.arange(182))  # D A: the left null vector is D⁻¹1
    whole = sp.csr_matrix(sp.diags_array(scale) @ gallery.neumann(14, 13))
    left = 1 / scale / np.linalg.norm(1 / scale)
    matrix = singular(whole)
    matrix.setTransposeNullSpace(PETSc.NullSpace().create(vectors=[scatter(matrix, left)], comm=matrix.getComm()))
    done = solve(whole, np.ones(182), matrix=matrix, ksp_rtol=1e-10)
    assert done.reason == 2
    rest = done.residual - left * (left @ done.residual)
    assert np.linalg.norm(rest) <= 1.001e-10 * np.linalg.norm(done.b)
    assert abs(left @ done.b) > 0.1 * np.linalg.norm(done.b)  # it was inconsistent indeed


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_an_inconsistent_right_hand_side_is_refused(solve, gallery, singular, shape):
    whole = gallery.neumann(*shape)
    done = solve(whole, 1.0 + consistent(whole.shape[0]), matrix=singular(whole))
    assert done.reason < 0
    assert np.isfinite(done.x).all()
    from analogpde.petsc import session

    outside = np.sqrt(len(done.b)) / np.linalg.norm(done.b)  # the ones that were added
    assert f"has {outside:.1e} of itself in the null space" in session().solves[""].worst.advice


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chip", ["ideal", "rram128"])
def test_singular_without_a_null_space_is_refused_or_answered_rightly(solve, gallery, shape, chip, PETSc):
    whole = gallery.neumann(*shape)
    n = whole.shape[0]
    for b, solvable in ((consistent(n), True), (1.0 + consistent(n), False)):
        try:
            done = solve(whole, b, analog_chip=chip)
        except PETSc.Error as error:
            assert "tile" in str(error.__cause__)  # no stable circuit
            PETSc.Options().delValue("ksp_type")
            PETSc.Options().delValue("analog_chip")
            continue
        if done.reason > 0:
            assert solvable
            assert done.backward_error <= 2.0**-24


def test_a_null_space_attached_after_a_solve_is_heeded(solve, gallery, distribute, constants):
    whole = gallery.neumann(40)
    matrix = distribute(whole)
    done = solve(whole, consistent(40), matrix=matrix, analog_chip="rram128")
    before = done.analog.programmings
    matrix.setNullSpace(constants(matrix))
    done.ksp.setOperators(matrix)
    matrix.stateIncrease()
    done.ksp.solve(done.rhs, done.solution)
    done.__dict__.pop("x", None)
    assert done.analog.programmings == before + 1  # the last unknown is grounded now
    exact = np.linalg.lstsq(whole.toarray(), done.b)[0]
    assert np.linalg.norm(done.x - exact) <= 2.0**-23 * np.linalg.norm(exact)


def test_the_initial_guess_keeps_its_part_in_the_null_space(solve, gallery, singular):
    whole = gallery.neumann(14, 13)
    done = solve(whole, consistent(182), matrix=singular(whole), start=np.full(182, 5.0))
    exact = np.linalg.lstsq(whole.toarray(), done.b)[0] + 5.0
    assert np.linalg.norm(done.x - exact) <= 2.0**-23 * np.linalg.norm(exact)


# Each was called converged with a residual of 1e-3 to 3e-2: the iterate grew along the constant, of which A says
# nothing, and measured by its size all errors were small.
@pytest.mark.parametrize("off", [1e-4, 1e-6, 1e-8, 1e-11])
@pytest.mark.parametrize("given", [{}, {"ksp_analog_accelerator": "fgmres"}, {"analog_chip": "pku2025"}],
                         ids=["rram128", "fgmres", "pku2025"])
def test_what_no_x_reaches_is_not_hidden_by_a_growing_constant(solve, gallery, off, given):
    whole = gallery.neumann(24, 24)
    b = np.random.default_rng(3).standard_normal(576)
    b -= b.mean()
    done = solve(whole, b + off, **given)
    assert done.reason == 2 or done.reason < 0  # right up to a constant, or refused
    # FGMRES meets a singular value that is the inconsistency's, and may take it for a slow mode
    assert done.reason == 2 or off > 1e-9 or given.get("ksp_analog_accelerator") == "fgmres"
    if done.reason == 2:
        exact = np.linalg.lstsq(whole.toarray(), b)[0]
        assert np.linalg.norm(done.x - done.x.mean() - exact) <= 2.0**-23 * np.linalg.norm(exact)
        assert done.relative_residual <= 1e-6


def test_a_guess_with_a_large_constant_hides_nothing(solve, gallery):
    whole = gallery.neumann(24, 24)
    b = np.random.default_rng(3).standard_normal(576)
    b -= b.mean()
    done = solve(whole, b, start=np.full(576, 1e6))
    assert done.reason == 2
    # A x has rounding of 2^-53 |A| |x|, 8e6 · 1.1e-16 in each of 576 rows: 2.2e-8, times 1/λ₂ = 59 in x
    exact = np.linalg.lstsq(whole.toarray(), b)[0]
    assert np.linalg.norm(done.x - done.x.mean() - exact) <= 2.0**-23 * np.linalg.norm(exact) + 1.3e-6

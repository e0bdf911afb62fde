"""Transposed solves and applications: the same tiles, rows and columns exchanged."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg as linalg

pytestmark = pytest.mark.mpi


def random_pair(matrix):
    x, y = matrix.createVecs()
    begin, end = x.getOwnershipRange()
    values = np.random.default_rng(0).normal(size=(2, matrix.getSize()[0]))
    x.array[:], y.array[:] = values[0, begin:end], values[1, begin:end]
    return x, y


@pytest.mark.parametrize("levels", [1, 2, 10])
@pytest.mark.parametrize("case", ["poisson", "convection", "neumann"])
def test_adjoint_identity_of_noise_free_tiles(PETSc, solve, gallery, distribute, case, levels):
    whole = {"poisson": gallery.poisson(40, 30), "convection": gallery.convection(35, 2.0),
             "neumann": gallery.neumann(40, 30)}[case]
    # static errors are the same in both directions; only what is drawn or rounded in a shot has no adjoint
    matrix = distribute(whole)
    if case == "neumann":
        matrix.setNullSpace(PETSc.NullSpace().create(constant=True, comm=matrix.getComm()))
    done = solve(whole, np.sin(np.arange(whole.shape[0])) if case != "neumann" else np.cos(
        np.pi * (np.arange(1200) % 30 + 0.5) / 30), matrix=matrix, pc_analog_levels=levels, analog_read_noise="none",
        analog_dac_bits="none", analog_adc_bits="none", ksp_rtol=1e-6)
    assert done.reason > 0
    pc = done.ksp.getPC()
    x, y = random_pair(matrix)
    bx, bty = x.duplicate(), y.duplicate()
    pc.apply(x, bx)
    pc.applyTranspose(y, bty)
    # tiles settle in float32: u times the roots of patch and size, well below 1e-5 of the norms
    assert abs(bx.dot(y) - x.dot(bty)) <= 1e-5 * (bx.norm() * y.norm() + x.norm() * bty.norm())
    assert abs(bx.dot(y)) > 1e-4 * bx.norm() * y.norm()  # the identity is not one of zeros


def test_the_transpose_of_a_noisy_pc_is_the_transpose_on_average(PETSc, solve, gallery):
    # converters off: a draw's mean is the same in both directions, a rounding's is not
    done = solve(gallery.convection(30, 2.0), analog_dac_bits="none", analog_adc_bits="none")
    pc = done.ksp.getPC()
    x, y = random_pair(done.matrix)
    bx, bty = x.duplicate(), y.duplicate()
    forth, back = [], []
    for _ in range(30):
        pc.apply(x, bx)
        pc.applyTranspose(y, bty)
        forth.append(bx.dot(y))
        back.append(x.dot(bty))
    # two independent means of 30 draws, five standard errors
    error = np.sqrt((np.var(forth) + np.var(back)) / 29)
    assert abs(np.mean(forth) - np.mean(back)) <= 5 * error
    assert np.std(forth) > 0 and np.std(back) > 0


@pytest.mark.parametrize("chip", ["ideal", "pku2025", "rram128", "sram64"])
@pytest.mark.parametrize("accelerator", ["auto", "none"])
def test_transposed_solves(solve, gallery, chip, accelerator):
    done = solve(gallery.convection(24, 1.0), analog_chip=chip, ksp_analog_accelerator=accelerator)
    done.ksp.solveTranspose(done.rhs, done.solution)
    assert done.reason > 0
    exact = linalg.splu(done.whole.T.tocsc()).solve(done.b)
    assert np.linalg.norm(done.x - exact) <= 2.0**-23 * np.linalg.norm(exact)
    other = linalg.splu(done.whole.tocsc()).solve(done.b)
    assert np.linalg.norm(exact - other) > 1e-3 * np.linalg.norm(exact)  # or A would do for Aᵀ


def test_a_solve_after_a_transposed_one_is_not_transposed(solve, gallery):
    done = solve(gallery.convection(16, 1.0))
    done.ksp.solveTranspose(done.rhs, done.solution)
    done.ksp.solve(done.rhs, done.solution)
    done.assert_fp32()
    assert done.analog.programmings == 1


def test_transposed_solves_are_counted_and_recorded(solve, gallery):
    from analogpde.petsc import session

    done = solve(gallery.convection(16, 1.0))
    before = session().totals.inv_shots
    done.ksp.solveTranspose(done.rhs, done.solution)
    assert session().totals.inv_shots > before
    assert session().solves[""].count == 2


def test_the_sliced_residual_has_no_transpose(solve, gallery, cause):
    done = solve(gallery.poisson(8, 8), ksp_analog_residual="sliced", ksp_analog_residual_bits=54)
    assert "-ksp_analog_residual" in cause(done.ksp.solveTranspose, done.rhs, done.solution)
    done.ksp.solve(done.rhs, done.solution)
    assert done.reason > 0

"""The default target, FP32-equivalence, in fact and not only by the solver's own estimate; the sliced residual."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as linalg

mpi = pytest.mark.mpi


def _rescaled(whole):
    units = sp.diags_array(10.0 ** (0.5 + 0.5 * np.sin(np.arange(whole.shape[0]))))
    return units @ whole @ units


CHIPS = ["ideal", "pku2025", "rram128", "sram64"]
SYSTEMS = {
    "2-D": lambda gallery: gallery.poisson(24, 23),
    "3-D": lambda gallery: gallery.poisson(9, 8, 8),
    "1-D": lambda gallery: gallery.poisson(150),
    "mass": lambda gallery: gallery.mass(16),
    "convection": lambda gallery: gallery.convection(20, 1.0),
    "strong convection": lambda gallery: gallery.convection(20, 3.0),
    "reaction": lambda gallery: gallery.poisson(20, 20) + sp.diags_array(10.0 ** np.linspace(-3, 3, 400)),
    "units of all sizes": lambda gallery: _rescaled(gallery.poisson(20, 20)),
}


@pytest.mark.parametrize(("name", "chip"), [
    pytest.param(name, chip, marks=[mpi] if name in ("2-D", "3-D", "mass", "convection") else [])
    for name in SYSTEMS for chip in CHIPS])
def test_every_chip_reaches_fp32(solve, gallery, name, chip):
    done = solve(sp.csr_matrix(SYSTEMS[name](gallery)), analog_chip=chip)
    done.assert_fp32()
    assert done.iterations <= 60


@mpi
@pytest.mark.parametrize("chip", ["ideal", "rram128"])
@pytest.mark.parametrize("peclet", [30.0, 1000.0])
def test_dominant_convection(solve, gallery, chip, peclet):
    solve(gallery.convection(20, peclet), analog_chip=chip).assert_fp32()


@pytest.mark.parametrize(("name", "levels", "accelerator"), [
    pytest.param(name, levels, accelerator, marks=[mpi] if name == "2-D" else [])
    for name in ("2-D", "3-D", "mass") for levels in (1, 10) for accelerator in ("none", "fcg", "fgmres")])
def test_every_accelerator_reaches_fp32_with_one_level_and_with_more(solve, gallery, name, accelerator, levels):
    done = solve(SYSTEMS[name](gallery), ksp_analog_accelerator=accelerator, pc_analog_levels=levels)
    done.assert_fp32()
    assert (len(done.analog._levels) == 1) == (levels == 1)


@pytest.mark.parametrize("given", [
    {"analog_tile_size": 16}, {"analog_tile_size": 32, "pc_analog_core": 10}, {"pc_analog_overlap": 0},
    {"pc_analog_overlap": 1}, {"pc_analog_slices": 2}, {"pc_analog_truncation": 0.15}, {"pc_analog_strength": 0.3},
    {"pc_analog_shift": 1.0}, {"ksp_analog_restart": 1}, {"ksp_analog_restart": 3, "ksp_analog_accelerator": "fgmres"},
    {"analog_programming_error": 0.05}, {"analog_cell_bits": "none", "analog_read_noise": "none"}])
def test_every_option_reaches_fp32(solve, gallery, given):
    solve(gallery.poisson(20, 20), **given).assert_fp32()


@mpi
@pytest.mark.parametrize(("name", "chosen"), [("2-D", True), ("mass", True), ("convection", False)])
def test_auto_chooses_by_symmetry(solve, gallery, name, chosen):
    done = solve(SYSTEMS[name](gallery), analog_chip="sram64", prefix="x_")
    same = solve(SYSTEMS[name](gallery), analog_chip="sram64", prefix="x_",
                 ksp_analog_accelerator="fcg" if chosen else "fgmres")
    assert np.array_equal(done.x, same.x)
    assert done.iterations == same.iterations


def test_fcg_refuses_an_indefinite_matrix_and_auto_goes_on_with_fgmres(solve):
    # b = (1, 1, 1): pᵀAp is −1 in the first direction and 3474 in the second
    whole, b = sp.csr_matrix(np.diag([1.0, 2.0, -4.0])), np.ones(3)
    refused = solve(whole, b, pc_type="none", ksp_analog_accelerator="fcg")
    assert (refused.reason, refused.iterations) == (-10, 1)
    done = solve(whole, b, pc_type="none")
    done.assert_fp32()


# ---- the sliced residual ----------------------------------------------------------------------------------------

def condition(whole):
    values = np.linalg.eigvalsh(whole.toarray())
    return values[-1] / values[0]


@mpi
def test_24_bits_stagnate_honestly_where_the_condition_forbids_fp32(solve, gallery):
    whole = gallery.poisson(150)
    assert 5e3 < condition(whole) < 2e4
    done = solve(whole, prefix="s_", ksp_analog_residual="sliced")
    assert done.reason == -5
    from analogpde.petsc import session

    record = session().solves["s_"].worst
    assert not record.converged
    assert "-ksp_analog_residual_bits" in record.advice
    assert "The sliced residual (24 bits) differs from the true one by a backward error of" in record.advice
    # A and x are rounded to 24 bits below their largest entry, half a step each at most: with three entries a row,
    # scaled to a unit diagonal, |ΔA| |x| + |A| |Δx| ≤ (3·½ + 2·½) 2^-24 ‖x‖∞, and diag(A) = 2 scales it back
    formed_wrongly = 2 * 2.5 * 2.0**-24 * np.abs(done.x).max()
    assert np.abs(done.residual).max() <= 3 * formed_wrongly  # at its floor, up to noise
    # and the forward error is at most what the condition makes of it; where in that range chance decides
    assert done.forward_error() <= condition(whole) * 2.0**-24 * 5


@mpi
@pytest.mark.parametrize("bits", [45, 54])
def test_enough_bits_converge(solve, gallery, bits):
    done = solve(gallery.poisson(150), ksp_analog_residual="sliced", ksp_analog_residual_bits=bits)
    done.assert_fp32()


@pytest.mark.parametrize("accelerator", ["none", "fcg", "fgmres"])
def test_36_bits_are_fp32_where_the_condition_is_small(solve, gallery, accelerator):
    # with the 30 bits that would do, a fast solve is at the floor before the rates tell how small the error is
    done = solve(gallery.mass(16), ksp_analog_residual="sliced", ksp_analog_residual_bits=36, analog_chip="sram64",
                 ksp_analog_accelerator=accelerator)
    done.assert_fp32()


@pytest.mark.parametrize("bits", [9, 15, 24])
def test_a_tolerance_above_the_floor_is_met_by_the_true_residual(solve, gallery, bits):
    rtol = 2.0 ** -(bits - 8)  # κ of 12 × 12 is 67: 6 bits, and 2 to spare
    done = solve(gallery.poisson(12, 12), ksp_analog_residual="sliced", ksp_analog_residual_bits=bits, ksp_rtol=rtol)
    assert done.reason == 2
    assert done.relative_residual <= rtol


@mpi
@pytest.mark.parametrize("bits", [9, 12, 18])
def test_the_floor_is_reported_and_is_where_it_is_said_to_be(solve, gallery, bits):
    from analogpde.petsc import session

    done = solve(gallery.poisson(12, 12), prefix="f_", ksp_analog_residual="sliced", ksp_analog_residual_bits=bits,
                 ksp_rtol=1e-12)
    assert done.reason == -5
    advice = session().solves["f_"].worst.advice
    said = float(advice.split("a backward error of ")[1].split(":")[0])
    assert said / 8 <= done.backward_error <= 8 * said
    assert 2.0 ** -(bits + 4) <= said <= 2.0 ** -(bits - 3)


@mpi
def test_the_least_number_of_iterations_is_done(solve, gallery):
    least = 20
    done = solve(gallery.poisson(20, 20), ksp_min_it=least)
    assert done.reason > 0 and done.iterations == least  # the target itself takes 8


@mpi
@pytest.mark.parametrize(("matrix", "right"), [
    (1e160, 1.0), (1e300, 1.0), (1e-200, 1.0), (1.0, 1e-60), (1.0, 1e-160), (1e-150, 1e-300), (1e300, 1e300)])
def test_units_of_any_size(solve, gallery, matrix, right):
    """Squares of norms over- or underflow here, and PETSc's default -ksp_atol is above some right-hand sides."""
    whole = gallery.poisson(14, 13)
    exact = np.random.default_rng(2).standard_normal(182)
    done = solve(sp.csr_matrix(whole * matrix), (whole @ exact) * right, analog_chip="rram128")
    assert done.reason > 0
    # powers of ten round the entries anew, by 2^-53: the same steps, unless the last is decided by that
    assert done.iterations <= solve(whole, whole @ exact, analog_chip="rram128").iterations + 1
    # κ = 80 and rounding of A and b leave 1e-14
    assert np.linalg.norm(done.x * (matrix / right) - exact) <= 2.0**-23 * np.linalg.norm(exact)


@mpi
def test_an_answer_that_fp64_cannot_hold_is_refused(solve, gallery):
    done = solve(sp.csr_matrix(gallery.poisson(12, 12) * 1e-200), np.full(144, 1e150))
    assert done.reason == -9


@mpi
def test_an_absolute_tolerance_that_was_asked_for_holds(solve, gallery):
    done = solve(gallery.poisson(12, 12), np.full(144, 1e-3), ksp_atol=1.0)
    assert (done.reason, done.iterations) == (3, 0)


@mpi
def test_a_guess_and_a_large_right_hand_side(solve, gallery):
    """PETSc's own test takes the norm of b where a guess is given, which overflows here, and lets everything pass."""
    whole = gallery.poisson(14, 13)
    done = solve(whole, np.full(182, 1e160), start=np.ones(182), ksp_rtol=1e-8)
    assert done.reason == 2
    assert done.iterations > 2
    exact = linalg.spsolve(whole.tocsc(), np.ones(182))
    # ‖A⁻¹‖ ‖b‖/‖x‖ = 1 for the smoothest b, 80 at most
    assert np.linalg.norm(done.x / 1e160 - exact) <= 80 * 1e-8 * np.linalg.norm(exact)


@mpi
def test_a_tiny_singular_matrix_without_a_null_space_ends_with_a_reason(solve, gallery):
    done = solve(sp.csr_matrix(1e-300 * gallery.neumann(14, 13)), np.cos(np.arange(182.0)))
    assert done.reason < 0

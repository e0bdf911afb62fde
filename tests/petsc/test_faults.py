"""Chips that age or break: FP32, or a refusal; never a wrong answer. And the multiplier's slices."""

import numpy as np
import pytest

mpi = pytest.mark.mpi


@pytest.fixture
def session(PETSc):
    """The session of this test."""
    from analogpde.petsc import session

    return session


@mpi
@pytest.mark.parametrize("faults", [
    {"analog_stuck_low": 0.02, "analog_stuck_high": 0.02}, {"analog_dead_rows": 0.02, "analog_dead_columns": 0.01},
    {"analog_dead_tiles": 0.2}, {"analog_chip": "pcm", "analog_time": 3.2e7}, {"analog_time": 3600},
    {"analog_off_conductance": 5e-7, "analog_off_error": 0.005}, {"analog_chip": "mram"}, {"analog_chip": "fefet"},
    {"analog_chip": "sram64", "analog_sign_mapping": "bias"},
    {"analog_dead_tiles": 0.2, "analog_tiles_per_rank": 4}, {"analog_time": 3.2e7},
    {"analog_dead_tiles": 0.2, "analog_stuck_low": 0.01, "analog_blockamc": 1, "analog_tile_size": 32},
    {"analog_programming_model": "cmo_hfox"}],
    ids=lambda f: " ".join(f"{k[7:]} {v}" for k, v in f.items()))
def test_fp32_all_the_same(solve, gallery, faults):
    solve(gallery.poisson(30, 20), **faults).assert_fp32()


@mpi
def test_replaced_tiles_are_counted(solve, gallery, session):
    done = solve(gallery.poisson(40, 30), prefix="d_", analog_dead_tiles=0.3, analog_tile_size=32)
    done.assert_fp32()
    operations = session().solves["d_"].operations
    fine = solve(gallery.poisson(40, 30), prefix="f_", analog_tile_size=32)
    tiles = session().solves["f_"].operations.tiles_programmed
    assert operations.tiles_replaced == operations.tiles_programmed - tiles > 0.1 * tiles
    assert fine.iterations <= done.iterations + 3


@mpi
def test_a_limited_chip_needs_no_spares(solve, gallery, session):
    # the dead ones are missing from the budget; the others take turns
    solve(gallery.poisson(40, 30), prefix="b_", analog_dead_tiles=0.3, analog_tile_size=32, analog_spares=0,
          analog_tiles_per_rank=20).assert_fp32()
    assert session().solves["b_"].operations.tiles_replaced == 0


def test_what_cannot_be_solved_is_refused(solve, gallery):
    # conductances off by a fifth of the largest: by themselves tiles correct nothing, and the solve says so
    done = solve(gallery.poisson(40, 40), ksp_analog_stagnation=10, ksp_max_it=100, ksp_analog_accelerator="none",
                 analog_programming_model="wan2022", analog_time=3.2e9)
    assert done.reason < 0


def test_leaks_that_leave_no_room_are_refused(solve, gallery, cause):
    text = cause(solve, gallery.poisson(40, 40), analog_off_conductance=1e-6, analog_off_error=0.15)
    assert "leave no room for the matrix" in text


@mpi
def test_progressive_slices_save_and_solve(solve, gallery, session):
    given = {"ksp_analog_residual": "sliced", "ksp_analog_residual_bits": 45, "ksp_analog_accelerator": "none",
             "analog_chip": "sram64"}
    whole = gallery.poisson(20, 12)
    full = solve(whole, prefix="a_", **given)
    done = solve(whole, prefix="b_", ksp_analog_residual_progressive=True, **given)
    done.assert_fp32()
    spent, saved = (session().solves["b_"].operations.mvm_slices, session().solves["b_"].operations.mvm_slices_saved)
    assert session().solves["a_"].operations.mvm_slices_saved == 0
    # the residual needs log2(2^24 ...) of 45 bits at the end, and fewer before
    assert saved > 0.3 * (spent + saved)
    # residuals are at most a tenth off: η grows to no more than η + 0.1 (1 + η), a few more steps
    assert done.iterations <= 1.5 * full.iterations + 2


@mpi
def test_noise_of_the_multiplier_is_rounded_away_or_reported(solve, gallery, session):
    given = {"ksp_analog_residual": "sliced", "ksp_analog_residual_bits": 45, "ksp_analog_accelerator": "none"}
    whole = gallery.poisson(20, 12)
    noisy = {"analog_mvm_read_noise": 0.001, **given}
    # five entries a row: 0.001·7·√5·7 = 0.11 of a digit, and a code a digit
    solve(whole, analog_mvm_adc_bits=12, **noisy).assert_fp32()
    done = solve(whole, prefix="n_", **noisy)
    assert done.reason < 0
    assert "The sliced residual (45 bits) differs from the true one" in session().solves["n_"].worst.advice


@mpi
def test_wires_of_the_multiplier_are_rounded_away_or_reported(solve, gallery, session):
    given = {"ksp_analog_residual": "sliced", "ksp_analog_residual_bits": 45, "ksp_analog_accelerator": "none",
             "analog_wire_resistance": 0.1}
    whole = gallery.poisson(20, 12)
    # 0.1 Ω × 128 segments × 40 µS of each of five cells, 0.26 % of sums of at most 7·7·4: below half a digit
    solve(whole, analog_mvm_adc_bits=12, **given).assert_fp32()
    done = solve(whole, prefix="w_", **given)
    assert done.reason < 0
    assert "The sliced residual (45 bits) differs from the true one" in session().solves["w_"].worst.advice


def test_parallel_input_slices_take_more_cells(solve, gallery, session):
    given = {"ksp_analog_residual": "sliced", "ksp_analog_residual_bits": 12, "ksp_rtol": 1e-2}
    cells, rounds = [], []
    for order in ("serial", "parallel"):
        solve(gallery.poisson(8, 8), analog_mvm_order=order, **given)
        cells.append(session().totals.cells_written)
        rounds.append(session().totals.mvm_rounds)
    assert rounds[0] == 4 * (rounds[1] - rounds[0]) > 0  # four input slices one after the other, or at once
    # 1 and −1/4 in 12 bits have one digit of three bits that is not zero; it is held once, or by four copies
    serial, both = cells[0], cells[1] - cells[0]
    assert both - serial == 3 * np.count_nonzero(gallery.poisson(8, 8).toarray())


def test_conjugate_gradients_want_the_whole_residual(solve, gallery, cause):
    text = cause(solve, gallery.poisson(8, 8), ksp_analog_residual="sliced", ksp_analog_accelerator="fcg",
                 ksp_analog_residual_progressive=True)
    assert "got 'fcg'; allowed: none | fgmres" in text


def test_draws_repeat(solve, gallery):
    given = {"ksp_analog_residual": "sliced", "analog_mvm_programming_error": 1e-9, "analog_stuck_low": 0.01,
             "ksp_rtol": 1e-4}
    first, again = (solve(gallery.poisson(20, 12), **given).x for _ in range(2))
    np.testing.assert_array_equal(first, again)

"""When the tiles are programmed, when not, and that nothing of them stays behind."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

pytestmark = pytest.mark.mpi


def again(done, *, set_operators=True):
    """Solve once more, with what the matrix is now; the whole matrix is brought up to date."""
    if set_operators:
        done.ksp.setOperators(done.matrix)
    done.ksp.solve(done.rhs, done.solution)
    done.__dict__.pop("x", None)
    done.__dict__.pop("residual", None)
    return done


@pytest.mark.parametrize("set_operators", [True, False])
def test_changed_values_are_programmed(solve, gallery, set_operators):
    done = solve(gallery.poisson(16, 15))
    for k in range(3):
        done.matrix.scale(1.5)
        done.whole = 1.5 * done.whole
        again(done, set_operators=set_operators).assert_fp32()
        assert done.analog.programmings == k + 2


@pytest.mark.parametrize("set_operators", [True, False])
def test_one_changed_value_on_one_rank_is_programmed(solve, gallery, set_operators):
    done = solve(gallery.poisson(16, 15))
    last = done.matrix.getSize()[0] - 1
    if done.matrix.getOwnershipRange()[1] == last + 1:
        done.matrix[last, last] = 40.0
    done.matrix.assemble()
    done.whole = done.whole.tolil()
    done.whole[last, last] = 40.0
    done.whole = done.whole.tocsr()
    again(done, set_operators=set_operators).assert_fp32()
    assert done.analog.programmings == 2


@pytest.mark.parametrize("set_operators", [True, False])
def test_another_state_with_the_same_values_is_not_programmed(solve, gallery, set_operators):
    done = solve(gallery.poisson(16, 15))
    tiles = done.analog._levels[0]
    values = done.matrix.getValuesCSR()[2].copy()
    for _ in range(3):
        done.matrix.zeroEntries()  # reassembled, as a DOLFINx LinearProblem does in each solve
        done.matrix.setValuesCSR(*done.matrix.getValuesCSR()[:2], values)
        done.matrix.assemble()
        again(done, set_operators=set_operators).assert_fp32()
    assert done.analog.programmings == 1
    assert done.analog._levels[0] is tiles


def test_an_equal_copy_of_the_matrix_is_not_programmed(solve, gallery, distribute):
    done = solve(gallery.poisson(16, 15))
    done.matrix = distribute(done.whole)
    again(done).assert_fp32()
    assert done.analog.programmings == 1


def test_another_matrix_is_programmed_and_judged_by_itself(solve, gallery, distribute):
    # two matrices made in the same way have the same PETSc state; what is known of the first (symmetry, norm, slices)
    # must not be believed of the second
    given = {"ksp_analog_residual": "sliced", "ksp_analog_residual_bits": 54}
    done = solve(gallery.poisson(15, 15), **given)
    state = done.matrix.stateGet()
    done.whole = gallery.convection(15, 1.0)
    done.matrix = distribute(done.whole)
    assert done.matrix.stateGet() == state
    again(done).assert_fp32()
    assert done.analog.programmings == 2


@pytest.mark.parametrize(("when", "expected"), [("on_change", [1, 2, 2]), ("always", [2, 3, 4]), ("never", [1, 1, 1])])
def test_reprogram(solve, gallery, when, expected):
    done = solve(gallery.poisson(16, 15), pc_analog_reprogram=when)
    assert done.analog.programmings == 1
    seen = []
    for change in ("state", "values", "state"):
        if change == "state":
            done.matrix.stateIncrease()
        else:
            done.matrix.scale(1.25)
            done.whole = 1.25 * done.whole
        again(done).assert_fp32()  # also with tiles that hold the old matrix: the residual is true
        seen.append(done.analog.programmings)
    assert seen == expected


def test_petscs_reuse_preconditioner(solve, gallery):
    done = solve(gallery.poisson(16, 15))
    done.ksp.getPC().setReusePreconditioner(True)
    done.matrix.scale(1.25)
    done.whole = 1.25 * done.whole
    again(done).assert_fp32()
    assert done.analog.programmings == 1


def test_each_programming_has_errors_of_its_own(solve, gallery):
    done = solve(gallery.poisson(16, 15), pc_analog_reprogram="always", pc_analog_levels=1)
    first = done.analog._levels[0].bank.factors.data.copy()
    done.matrix.stateIncrease()
    again(done)
    second = done.analog._levels[0].bank.factors.data
    assert first.shape == second.shape
    assert first.size == 0 or not np.array_equal(first, second)


@pytest.mark.parametrize(("name", "value"), [
    ("analog_seed", 5), ("analog_chip", "pku2025"), ("pc_analog_overlap", 1), ("pc_analog_levels", 1),
    ("analog_dac_bits", 8)])
def test_options_read_after_a_solve_are_in_force_in_the_next(solve, gallery, options, name, value):
    done = solve(gallery.poisson(16, 15))
    done.ksp.setFromOptions()
    again(done, set_operators=False)
    assert done.analog.programmings == 1  # the same options are no change
    options[name] = value
    done.ksp.setFromOptions()
    again(done, set_operators=False).assert_fp32()
    assert done.analog.programmings == 2
    tiles = done.analog._levels[0]
    settings = done.analog.settings
    assert tiles.bank.chip == settings.chip and tiles.bank.seed == settings.seed
    assert settings == tiles.settings


def test_reset_and_use_again(solve, gallery):
    done = solve(gallery.poisson(16, 15))
    operators = done.ksp.getOperators()
    done.ksp.reset()
    assert done.analog._levels == []
    done.ksp.setOperators(*operators)
    again(done).assert_fp32()


def test_another_ksp_type_frees_the_context(solve, gallery):
    done = solve(gallery.poisson(16, 15))
    context = weakref.ref(done.ksp.getPythonContext())
    done.ksp.setType("fgmres")
    gc.collect()
    assert context() is None
    done.ksp.setTolerances(rtol=1e-10)
    assert done.ksp.getPC().getType() == "analog"  # the tiles stay
    again(done)
    assert done.relative_residual <= 1.001e-10


def test_nothing_is_left_of_a_destroyed_solver(PETSc, solve, gallery):
    done = solve(gallery.poisson(24, 24))
    analog = done.analog
    assert len(analog._levels) == 2
    left = [weakref.ref(thing) for thing in (done.ksp.getPythonContext(), analog, analog._levels[0], analog._levels[1],
                                             analog._levels[0].bank, analog._levels[0].patches)]
    del analog
    done.ksp.destroy()
    gc.collect()
    PETSc.garbage_cleanup(PETSc.COMM_WORLD)
    assert [thing() for thing in left] == [None] * len(left)


def test_ten_solvers_at_once_do_not_disturb_each_other(solve, gallery):
    whole = gallery.poisson(12, 12)
    first = [solve(whole, prefix=f"s{k}_") for k in range(10)]
    for done in first:
        x = done.x
        again(done).assert_fp32()
        assert not np.array_equal(x, done.x)  # later shots, other read noise

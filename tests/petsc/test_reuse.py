"""Changed values with the same pattern keep the partition, as long as the cores still fit the couplings."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

pytestmark = pytest.mark.mpi


def heat(gallery, dt, n=48):
    """M + dt K by bilinear elements' mass and a five-point K on n × n nodes, mesh width 1/n."""
    return sp.csr_matrix(gallery.mass(n) / n**2 + dt * gallery.poisson(n, n))


def plane(x, y, n=40):
    """x and y weigh the couplings of the two directions."""
    line = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    return sp.csr_matrix(x * sp.kron(sp.eye_array(n), line) + y * sp.kron(line, sp.eye_array(n)))


def with_values(done, distribute, whole):
    """Solve with another matrix, and give back what the preconditioner held before and holds now."""
    before = list(done.analog._partitions)
    done.whole, done.matrix = whole, distribute(whole)
    done.ksp.setOperators(done.matrix)
    done.ksp.solve(done.rhs, done.solution)
    done.__dict__.pop("x", None)
    done.__dict__.pop("residual", None)
    return before, list(done.analog._partitions)


def calls(PETSc, name):
    return PETSc.Log.Event(f"Analog{name}").getPerfInfo()["count"]


def test_time_steps_of_changing_length_keep_the_partition(PETSc, solve, gallery, distribute):
    PETSc.Log.begin()
    done = solve(heat(gallery, 1e-3))
    assert len(done.analog._partitions) == 1
    for count, dt in enumerate((2e-3, 4e-3, 1e-2), start=2):
        partitioned, programmed = calls(PETSc, "Partition"), calls(PETSc, "Program")
        before, now = with_values(done, distribute, heat(gallery, dt))
        assert before == now
        assert calls(PETSc, "Partition") == partitioned
        assert calls(PETSc, "Program") > programmed
        done.assert_fp32()
        fresh = solve(done.whole)
        fresh.assert_fp32()
        # all nine couplings keep their order and every one its side of the threshold: the same cores are grown
        assert abs(done.iterations - fresh.iterations) <= 1  # other programming errors, another draw of the noise
        assert (done.analog.programmings, done.analog.partitionings) == (count, 1)
        assert f"programmed {count} times, cut into patches once: partition re-used" in done.analog.describe()
    assert "re-used" not in fresh.analog.describe()


@pytest.mark.parametrize(("levels", "dt", "scale"), [(1, 2e-3, 1.0), (10, 1e-3, 4.0)])
def test_a_kept_partition_gives_what_a_new_one_would(solve, gallery, distribute, levels, dt, scale):
    # No draws on an ideal chip, and new cores are the old ones: on one level since the same couplings are strong, on
    # all levels of a matrix times a power of two since the strengths are equal to the bit. Not a bit may differ.
    given = {"analog_chip": "ideal", "analog_tile_size": 32, "pc_analog_levels": levels}
    done = solve(heat(gallery, 1e-3), **given)
    before, now = with_values(done, distribute, scale * heat(gallery, dt))
    assert before == now
    assert len(now) == (1 if levels == 1 else 2)
    fresh = solve(done.whole, **given)
    assert done.iterations == fresh.iterations
    assert np.array_equal(done.x, fresh.x)


def test_always_programming_keeps_the_partition_too(solve, gallery, distribute):
    done = solve(heat(gallery, 1e-3), pc_analog_reprogram="always")
    with_values(done, distribute, done.whole)
    assert (done.analog.programmings, done.analog.partitionings) == (2, 1)


@pytest.mark.parametrize(("x", "y"), [(0.01, 1.0), (1.0, 100.0)])
def test_turned_couplings_are_partitioned_anew(solve, distribute, x, y):
    done = solve(plane(1.0, 0.01))
    before, now = with_values(done, distribute, plane(x, y))
    assert not set(before) & set(now)
    done.assert_fp32()
    assert done.iterations <= 1 + solve(done.whole).iterations
    assert done.analog.partitionings == 2


def test_isotropic_cores_do_not_stay_for_an_anisotropic_problem(solve, distribute):
    done = solve(plane(1.0, 1.0))
    before, now = with_values(done, distribute, plane(1.0, 1.5))
    assert before == now  # all couplings are strong still
    before, now = with_values(done, distribute, plane(1.0, 100.0))
    assert not set(before) & set(now)


def test_cores_of_a_smooth_coefficient_do_not_stay_for_a_rough_one(solve, gallery, distribute):
    smooth = gallery.poisson(40, 40)
    scale = sp.diags_array(np.exp(1.5 * np.random.default_rng(2).normal(size=1600)))
    done = solve(smooth)
    before, now = with_values(done, distribute, sp.csr_matrix(scale @ smooth @ scale))
    assert not set(before) & set(now)
    done.assert_fp32()


def test_freed_unknowns_are_partitioned_anew(solve, gallery, distribute):
    # one side held (1 on the diagonal, zeros kept), then free: nothing was grown for it
    free = plane(1.0, 1.0)
    coordinates = free.tocoo()
    held = (coordinates.row < 40) | (coordinates.col < 40)
    value = np.where(held, np.where(coordinates.row == coordinates.col, 4.0, 0.0), coordinates.data)
    done = solve(sp.csr_matrix((value, (coordinates.row, coordinates.col)), shape=free.shape))
    before, now = with_values(done, distribute, free)
    assert not set(before) & set(now)
    done.assert_fp32()


def test_another_pattern_is_partitioned_anew(solve, gallery, distribute):
    done = solve(plane(1.0, 1.0))
    before, now = with_values(done, distribute, gallery.mass(40))
    assert not set(before) & set(now)


def test_a_failed_set_up_leaves_no_partition(PETSc, solve, distribute):
    done = solve(plane(1.0, 1.0))
    wrong = plane(1.0, 1.0).tolil()
    wrong[7, 7] = 0.0
    bad = distribute(sp.csr_matrix(wrong) + 0.0 * plane(1.0, 1.0))
    done.ksp.setOperators(bad)
    with pytest.raises(PETSc.Error):
        done.ksp.setUp()
    assert done.analog._partitions == []
    with_values(done, distribute, plane(1.0, 1.0))
    done.assert_fp32()

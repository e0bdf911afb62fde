"""Fixed point: within half a step, exact where it can be."""

from itertools import pairwise

import numpy as np
import pytest

from analogpde.tile.mvm import slices, to_fixed_point

BITS = [3, 4, 8, 12, 23, 24, 25, 36, 48, 52, 53, 54]


def sample(scale=1.0):
    return scale * np.random.default_rng(5).normal(size=2000)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scale", [1.0, 1e-200, 3e150])
def test_error_is_at_most_half_a_step(bits, scale):
    values = sample(scale)
    largest = np.abs(values).max()
    rounded = to_fixed_point(values, bits, largest)
    # the step is 2^⌈log2 largest⌉ 2^(−bits) < 2 largest 2^(−bits); half of that, no more
    step = 2.0 ** (np.ceil(np.log2(largest)) - bits)
    assert np.abs(rounded - values).max() <= step / 2 < largest * 2.0**-bits
    if bits <= 36:  # and the grid is really used: of 2000 values some lie in the outer tenth of a step
        assert np.abs(rounded - values).max() > 0.45 * step


@pytest.mark.parametrize("bits", [b for b in BITS if b < 53])
def test_values_lie_on_the_grid_and_fit_the_bits(bits):
    values = sample()
    largest = np.abs(values).max()
    codes = to_fixed_point(values, bits, largest) / 2.0 ** (np.ceil(np.log2(largest)) - bits)
    np.testing.assert_array_equal(codes, np.rint(codes))
    assert np.abs(codes).max() <= 2**bits


@pytest.mark.parametrize("bits", BITS)
def test_integers_are_exact(bits):
    top = 2 ** min(bits, 52)
    values = np.array([0, 1, -1, 2, 3, top // 2 + 1, top - 1, 1 - top, top], float)
    np.testing.assert_array_equal(to_fixed_point(values, bits, float(top)), values)


@pytest.mark.parametrize("bits", BITS)
def test_rounding_twice_is_rounding_once(bits):
    values = sample()
    largest = np.abs(values).max()
    once = to_fixed_point(values, bits, largest)
    np.testing.assert_array_equal(to_fixed_point(once, bits, largest), once)


def test_more_bits_never_do_worse():
    values = sample()
    errors = [np.abs(to_fixed_point(values, bits, np.abs(values).max()) - values).max() for bits in BITS]
    assert all(after <= before for before, after in pairwise(errors))


def test_the_largest_value_of_all_ranks_sets_the_grid():
    # a rank with small values only rounds them on the common grid: to zero here
    np.testing.assert_array_equal(to_fixed_point(np.array([1e-3, -2e-3]), 3, 1.0), [0.0, 0.0])


def test_zero_and_empty():
    np.testing.assert_array_equal(to_fixed_point(np.zeros(3), 24, 0.0), np.zeros(3))
    assert to_fixed_point(np.empty(0), 24, 1.0).size == 0


def test_the_smallest_numbers_of_fp64():
    values = np.array([5e-324, -1e-320, 0.0])
    np.testing.assert_array_equal(to_fixed_point(values, 24, 1e-320), values)


def test_what_comes_back_is_a_copy():
    values = sample()
    for bits in (24, 54):
        rounded = to_fixed_point(values, bits, np.abs(values).max())
        assert not np.shares_memory(rounded, values)


def test_not_a_number_stays_one():
    assert np.isnan(to_fixed_point(np.array([np.nan, 1.0]), 24, 1.0)).tolist() == [True, False]


@pytest.mark.parametrize(("bits", "count"), [(3, 1), (4, 2), (6, 2), (7, 3), (24, 8), (53, 18), (54, 18)])
def test_slices(bits, count):
    assert slices(bits) == count

"""The bit-sliced multiplier with cells, noise and ADCs: exact where digits are, and two ways to one distribution."""

import numpy as np
import pytest
import scipy.sparse as sp

from analogpde.chip import Multiplier, Wire
from analogpde.tile.mvm import _cut, keep_top, program_sliced, slices, step_of, to_fixed_point
from analogpde.tile.wires import eliminate

BITS = 12
DRAWS = 400


def sample(n=40, seed=0, density=0.4):
    rng = np.random.default_rng(seed)
    a = rng.integers(-(2**BITS), 2**BITS + 1, (n, n))
    a[rng.random((n, n)) > density] = 0
    return a, rng.integers(-(2**BITS), 2**BITS + 1, n)


def bank(a, multiplier, tile=16, **how):
    csr = sp.csr_matrix(a)
    return program_sliced(csr.indptr, csr.indices, csr.data.astype(np.int64), BITS, multiplier, tile, **how)


def errors(a, x, multiplier, path, **how):
    programmed = bank(a, multiplier, **how)
    return np.array([programmed.multiply(x, len(a), event, path=path) for event in range(DRAWS)]) - a @ x


@pytest.mark.parametrize("path", ["explicit", "at once"])
@pytest.mark.parametrize(("cell_bits", "input_bits"), [(3, 3), (1, 4), (5, 2), (8, 1)])
def test_ideal_slices_are_exact(path, cell_bits, input_bits):
    a, x = sample()
    a[3], x[5] = 0, 2**BITS  # a row without entries; the top code
    made = bank(a, Multiplier(cell_bits=cell_bits, input_bits=input_bits)).multiply(x, len(a), 0, path=path)
    np.testing.assert_array_equal(made, a @ x)


def test_an_adc_with_a_code_a_digit_is_exact_and_removes_small_noise():
    a, x = sample()
    # 16 entries a line at most: sums up to 16·49 = 784, 11 bits with the sign
    np.testing.assert_array_equal(bank(a, Multiplier(adc_bits=11)).multiply(x, len(a), 0), a @ x)
    # noise of 7 σ √(16·49) = 0.1 of a digit at most: half a digit is five deviations
    quiet = Multiplier(adc_bits=11, read_noise=0.1 / 7 / 28)
    np.testing.assert_array_equal(bank(a, quiet).multiply(x, len(a), 0), a @ x)
    assert (bank(a, Multiplier(read_noise=quiet.read_noise)).multiply(x, len(a), 0) != a @ x).any()


def test_empty_blocks_are_not_programmed():
    a = np.zeros((40, 40), int)
    a[:5, 20:25], a[30, 39] = 7, 3
    programmed = bank(a, Multiplier())
    assert len(programmed.tiles) == 2
    assert len(programmed.rows) == 6  # lines: rows that hold something
    np.testing.assert_array_equal(programmed.fullest, [5] * 5 + [1])


@pytest.mark.parametrize("multiplier", [
    Multiplier(read_noise=0.01), Multiplier(read_noise=0.02, adc_bits=12), Multiplier(cell_bits=1, read_noise=0.03)])
def test_one_draw_has_the_distribution_of_all(multiplier):
    a, x = sample()
    digits = np.zeros((len(x), slices(BITS, 3)), np.int64)
    _cut(x, 3, digits)
    assert bank(a, multiplier).smooth(digits)
    explicit, once = (errors(a, x, multiplier, path) for path in ("explicit", "at once"))
    spread = once.std(axis=0)
    # means: of 40 rows none beyond 5 standard errors; deviations: the relative standard error of one is 1/sqrt(2 N)
    assert (np.abs(explicit.mean(axis=0)) <= 5 * spread / np.sqrt(DRAWS)).all()
    assert (np.abs(once.mean(axis=0)) <= 5 * spread / np.sqrt(DRAWS)).all()
    assert (np.abs(explicit.std(axis=0) / spread - 1) <= 5 / np.sqrt(DRAWS)).all()
    # and the fourth moment is a normal one's
    for made in (explicit, once):
        assert np.mean((made / spread) ** 4) == pytest.approx(3.0, abs=5 * np.sqrt(96 / made.size))
    # the closed form: Σ over slices of weight² σ² x²
    m = 2**multiplier.cell_bits - 1
    held = np.zeros((*a.shape, slices(BITS, multiplier.cell_bits)), np.int64)
    for row in range(len(a)):
        _cut(a[row], multiplier.cell_bits, held[row])
    rows = 4.0 ** (multiplier.cell_bits * np.arange(held.shape[2] - 1, -1, -1))
    inputs = 4.0 ** (3 * np.arange(digits.shape[1] - 1, -1, -1))
    variance = (multiplier.read_noise * m) ** 2 * np.einsum("ijs,s,jt,t->i", held != 0, rows, digits**2, inputs)
    if multiplier.adc_bits is None:
        assert (np.abs(once.std(axis=0) / np.sqrt(variance) - 1) <= 5 / np.sqrt(2 * DRAWS)).all()


def test_where_the_adc_is_coarse_one_draw_is_wrong_and_is_not_taken():
    a, x = sample()
    coarse = Multiplier(read_noise=0.0005, adc_bits=6)
    explicit, once, auto = (errors(a, x, coarse, path) for path in ("explicit", "at once", "auto"))
    np.testing.assert_array_equal(auto, explicit)
    # the rounding error is frozen: it does not average out, as that of one draw does
    assert np.abs(explicit.mean(axis=0)).max() > 0.5 * explicit.std() > 0
    assert np.abs(once.mean(axis=0)).max() < 5 * once.std() / np.sqrt(DRAWS)
    # but over rows its size is the same
    assert np.sqrt(np.mean(explicit**2)) == pytest.approx(np.sqrt(np.mean(once**2)), rel=0.3)


def test_programming_errors_are_static_and_scale():
    a, x = sample()
    first = [bank(a, Multiplier(programming_error=0.01)).multiply(x, len(a), event) for event in (0, 1)]
    np.testing.assert_array_equal(*first)
    half = bank(a, Multiplier(programming_error=0.005)).multiply(x, len(a), 0)
    np.testing.assert_allclose(first[0] - a @ x, 2 * (half - a @ x), rtol=1e-5, atol=1e-3 * np.abs(a @ x).max())
    again = bank(a, Multiplier(programming_error=0.01), event=1).multiply(x, len(a), 0)
    assert (again != first[0]).any()


def test_blocks_keep_their_draws_whatever_else_is_programmed():
    a, x = sample()
    noisy = Multiplier(programming_error=0.01)
    whole = bank(a, noisy).multiply(x, 40, 0)
    csr = sp.csr_matrix(a[16:])  # the second row of blocks alone, with its ids
    lower = program_sliced(csr.indptr, csr.indices, csr.data.astype(np.int64), BITS, noisy, 16, first=3)
    np.testing.assert_allclose(lower.multiply(x, 24, 0)[:16], whole[16:32], rtol=1e-12)


def test_wires_of_the_arrays():
    """Two blocks of one row of digits each against the same arrays by exact elimination: second order in the change."""
    codes = np.array([[7, 0, -3, 5], [0, 2, 6, -1]])
    csr = sp.csr_matrix(codes)
    how = (csr.indptr, csr.indices, csr.data.astype(np.int64), 3, Multiplier(), 4)
    x = np.array([1, 7, 2, 5])
    unit, ohm = 40e-6, 300.0
    exact = [eliminate(part[None] * 1.0, *2 * [np.array([ohm * unit / 7])])[0][0] for part in
             (np.pad(np.maximum(codes, 0), ((0, 2), (0, 0))), np.pad(np.maximum(-codes, 0), ((0, 2), (0, 0))))]
    wanted = (exact[0] - exact[1])[:2] @ x
    made = program_sliced(*how, wire=Wire(row=ohm, column=ohm), conductance=unit).multiply(x, 2, 0)
    change = np.abs(wanted - codes @ x)
    assert change.min() > 0.1  # of a digit
    assert (np.abs(made - wanted) < 0.1 * change).all()
    # an ADC with a code a digit reads the right one as long as the wires change less than half of it
    weak = program_sliced(*how[:4], Multiplier(adc_bits=9), 4, wire=Wire(row=1.0, column=1.0), conductance=unit)
    np.testing.assert_array_equal(weak.multiply(x, 2, 0), codes @ x)


@pytest.mark.parametrize("path", ["explicit", "at once"])
@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_top_slices_alone(path, kept):
    a, x = sample()
    made = bank(a, Multiplier()).multiply(x, len(a), 0, kept=kept, path=path)
    cut = 8 ** (4 - kept)
    a, x = (np.sign(v) * (np.abs(v) // cut * cut) for v in (a, x))
    np.testing.assert_array_equal(made, a @ x)


@pytest.mark.parametrize(("bits", "width"), [(24, 3), (24, 5), (10, 3), (53, 3), (8, 8)])
def test_keep_top_leaves_less_than_a_unit_of_the_last_slice_kept(bits, width):
    values = np.random.default_rng(1).normal(size=500)
    largest = np.abs(values).max()
    step = step_of(bits, largest)
    fixed = to_fixed_point(values, bits, largest)
    count = slices(bits, width)
    for kept in range(1, count + 1):
        top = keep_top(fixed, step, bits, width, kept)
        assert (np.abs(top) <= np.abs(fixed)).all()
        assert np.abs(fixed - top).max() < step * 2.0 ** (width * (count - kept))
        if kept == count:
            np.testing.assert_array_equal(top, fixed)

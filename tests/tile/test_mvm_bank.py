"""Open-loop arrays: the products of couplings between parts of a block, their errors, what they count."""

import numpy as np
import pytest

from analogpde.chip import Chip, Converter
from analogpde.cost import Ledger
from analogpde.errors import InvalidInput
from analogpde.tile.mvm_bank import Entries, program_mvm


def entries(matrices):
    """Entries of dense rectangular matrices; zeros are no entries."""
    owner, row, col, value = [], [], [], []
    for k, matrix in enumerate(matrices):
        i, j = np.nonzero(matrix)
        owner.append(np.full(len(i), k))
        row.append(i)
        col.append(j)
        value.append(matrix[i, j])
    return Entries(*(np.concatenate(part) for part in (owner, row, col, value)))


def sparse(rows, cols, density=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, cols)) * (rng.random((rows, cols)) < density)


def program(matrices, chip, first_tile=0, **how):
    return program_mvm(entries(matrices), np.arange(first_tile, first_tile + len(matrices)), chip, **how)


def product(bank, x, rows, event=0, transposed=False):
    """A x of every block, by its arrays."""
    y = np.zeros((len(x), rows))
    ledger = bank.subtract(x, y, event, transposed=transposed)
    return -y, ledger


MATRICES = [sparse(9, 7), np.ones((1, 1)), sparse(16, 16, 1.0, 1), sparse(10, 16, 0.3, 2)]


@pytest.mark.parametrize("transposed", [False, True])
def test_an_ideal_product_is_one_in_float32(tools, transposed):
    bank, aimed = program(MATRICES, tools.chip(tile_size=8))
    np.testing.assert_array_equal(aimed, entries(MATRICES).value)
    x = np.random.default_rng(3).normal(size=(4, 16))
    got, _ = product(bank, x, 16, transposed=transposed)
    for k, matrix in enumerate(MATRICES):
        a = matrix.T if transposed else matrix
        v = x[k, : a.shape[1]]
        # entries are kept in float32, sums in FP64
        assert (np.abs(got[k, : len(a)] - a @ v) <= tools.unit_roundoff * (np.abs(a) @ np.abs(v)) * (1 + 1e-6)).all()
        assert (got[k, len(a):] == 0).all()
    assert np.abs(got[2] - (MATRICES[2].T if transposed else MATRICES[2]) @ x[2]).max() > 0  # in float32, not in FP64


def test_it_subtracts_from_what_is_there(tools):
    bank, _ = program([np.array([[2.0, 0.5]])], tools.chip())
    y = np.array([[1.0]])
    bank.subtract(np.array([[3.0, 4.0]]), y, 0)
    assert y == [[1.0 - 8.0]]


@pytest.mark.parametrize("errors", [{}, {"read": 0.01, "dac": 4, "adc": 6}])
@pytest.mark.parametrize("power", [-1000, -600, -3, 5, 900])
def test_size_of_the_input_does_not_matter(tools, errors, power):
    bank, _ = program(MATRICES, tools.chip(tile_size=8, **errors))
    x = np.random.default_rng(3).normal(size=(4, 16))
    np.testing.assert_array_equal(product(bank, np.ldexp(x, power), 16)[0], np.ldexp(product(bank, x, 16)[0], power))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_stays_in_its_block(tools, bad):
    bank, _ = program([np.ones((3, 3))] * 2, tools.chip(read=0.01, dac=6, adc=8))
    x = np.ones((2, 3))
    good = product(bank, x, 3)[0]
    x[1, 0] = bad
    got = product(bank, x, 3)[0]
    assert not np.isfinite(got[1]).any()
    np.testing.assert_array_equal(got[0], good[0])


# ---- programming ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_entries_go_to_the_nearest_level_and_the_largest_to_the_top(tools, slices):
    matrix = sparse(8, 8, 0.6)
    bank, aimed = program([matrix], tools.chip(bits=3), slices=slices)
    value = entries([matrix]).value
    unit = np.abs(value).max() / (8**slices - 1)
    assert np.abs(aimed - value).max() <= unit * (0.5 + 1e-9)
    np.testing.assert_allclose(aimed / unit, np.rint(aimed / unit), atol=1e-9)
    assert aimed[np.argmax(np.abs(value))] == pytest.approx(value[np.argmax(np.abs(value))])
    got, _ = product(bank, np.eye(1, 8), 8)  # the first unit vector shows the first column
    column = np.zeros(8)
    e = entries([matrix])
    column[e.row[e.col == 0]] = aimed[e.col == 0]
    np.testing.assert_allclose(got[0], column, rtol=2 * tools.unit_roundoff)


def test_cells_that_are_on_are_counted_by_digits(tools):
    # levels of two 3-bit slices: 63 = 77, 56 = 70, 7 = 07, 9 = 11 and 0 = 00 in octal digits
    bank, aimed = program([np.array([[63.0, -56.0, 7.0, 9.0, 0.2]])], tools.chip(bits=3), slices=2)
    np.testing.assert_allclose(aimed, [63, -56, 7, 9, 0])
    assert bank.programmed == Ledger(cells_written=6, tiles_programmed=1, write_pulses=6, pulses_in_turn=1)


def test_a_calibrated_adc_has_one_scale_for_all_vectors():
    """8 codes each way of the largest output for random inputs; small outputs are lost, large ones halve the input."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 9))
    chip = Chip("x", adc=Converter(bits=4, calibrated=1.0))
    bank, _ = program([a], chip)
    reach = bank.circuit.reach[0, 0]
    x = rng.normal(size=(2000, 9))
    typical = np.abs(x / np.abs(x).max(axis=1, keepdims=True) @ a.T).max(axis=1)
    assert np.quantile(typical, 0.8) < reach < 1.2 * typical.max()  # the largest of 32
    step = reach / 7
    for vector in (0.2 * np.eye(9)[3], x[0], np.sign(a[0])):
        got, _ = product(bank, vector[None], 6)
        largest = np.abs(vector).max()
        part = 1.0
        while np.abs(a @ vector / largest * part).max() > reach:
            part /= 2.0
        np.testing.assert_allclose(got[0], np.rint(a @ vector / largest * part / step) * step / part * largest,
                                   atol=1e-5 * step)
    assert part < 1.0  # of the last one, which all entries of a row add up to
    back = np.zeros((1, 9))
    bank.subtract(np.eye(1, 6), back, 0, transposed=True)
    step = bank.circuit.reach[1, 0] / 7
    np.testing.assert_allclose(back[0], -np.rint(a[0] / step) * step, atol=1e-5)


def test_programming_error_of_cells(tools):
    count, sigma = 400, 0.01
    matrix = np.array([[7.0, -3.0], [0.0, 1.0]])
    bank, aimed = program([matrix] * count, tools.chip(bits=3, programming=sigma), seed=5)
    error = (bank.value - aimed).reshape(count, 3) / 7.0
    # the deviation of 400 draws is off by 1/√800 of itself; five of these
    np.testing.assert_allclose(error.std(axis=0), sigma, rtol=5 / np.sqrt(2 * count))
    assert (np.abs(error.mean(axis=0)) <= 5 * sigma / np.sqrt(count)).all()


def test_too_many_slices_are_refused(tools):
    with pytest.raises(InvalidInput, match="slices: got 8"):
        program([np.ones((2, 2))], tools.chip(bits=8), slices=8)


# ---- read noise and converters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("slices", [1, 2])
def test_covariance_of_read_noise(tools, slices, transposed):
    matrix = np.array([[63.0, 0.0, -56.0], [9.0, 7.0, 0.0]])
    top = np.array([[1, 0, 1], [1, 0, 0]])  # digits that are on, of the high slice
    low = np.array([[1, 0, 0], [1, 1, 0]])
    sigma, count, events = 0.02, 100, 40
    bank, _ = program([matrix] * count, tools.chip(bits=3 if slices == 2 else None, read=sigma), slices=slices, seed=2)
    # a fully-on cell of the high slice is 7·8 levels, of the low one 7; of a continuous cell it is the largest entry
    variance = sigma**2 * (56.0**2 * top + 7.0**2 * low if slices == 2 else 63.0**2 * (matrix != 0))
    if transposed:
        matrix, variance = matrix.T, variance.T
    x = np.array([0.3, -1.0, 0.6])[: matrix.shape[1]]
    draws = np.concatenate([product(bank, np.tile(x, (count, 1)), len(matrix), event, transposed)[0]
                            for event in range(events)]) - matrix @ x
    expected = variance @ x**2
    number = count * events
    sample = draws.T @ draws / number
    # of N draws an entry of the sample covariance deviates by √((C_ii C_jj + C_ij²)/N); lines are independent
    deviation = np.sqrt((np.outer(expected, expected) + np.diag(expected**2)) / number)
    assert (np.abs(sample - np.diag(expected)) <= 5 * deviation).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_converters_round_to_their_own_largest(tools, bits):
    codes = 2 ** (bits - 1) - 1
    x = np.random.default_rng(1).normal(size=(3, 20)) * np.array([[1.0], [1e-5], [1e7]])
    largest = np.abs(x).max(axis=1, keepdims=True)
    for part in ({"dac": bits}, {"adc": bits}):
        bank, _ = program([np.eye(20)] * 3, tools.chip(**part))  # an identity shows either
        got = product(bank, x, 20)[0] / largest * codes
        np.testing.assert_allclose(got, np.rint(got), atol=1e-12 * codes)
        assert np.abs(got - x / largest * codes).max() <= 0.5 + 1e-9


def test_draws_are_keyed(tools):
    chip = tools.chip(bits=4, programming=0.01, read=0.01)
    x = np.random.default_rng(0).normal(size=(3, 6))

    def shot(first_tile=0, event=0, **how):
        return product(program([sparse(6, 6)] * 3, chip, first_tile, **how)[0], x, 6, event)[0]

    np.testing.assert_array_equal(shot(), shot())
    alone, _ = program([sparse(6, 6)], chip, 2)
    np.testing.assert_array_equal(product(alone, x[2:], 6)[0][0], shot()[2])  # the same in another batch
    for other in (shot(first_tile=3), shot(seed=1), shot(name="a"), shot(event=1)):
        assert (other != shot()).any(axis=1).all()


# ---- arrays ---------------------------------------------------------------------------------------------------------


def test_counts(tools):
    chip = tools.chip(tile_size=8)
    full = np.ones((16, 12))
    bank, _ = program([full, np.zeros((16, 16)), np.diag(np.r_[np.ones(3), np.zeros(13)])], chip)
    # 16 × 12 lines are four arrays of 8 × 8 and 8 × 4; nothing is no array; three lines in use fit one
    assert bank.count == 5
    _, ledger = product(bank, np.ones((3, 16)), 16)
    assert tools.counts(ledger) == Ledger(mvm_shots=5, dac_conversions=2 * (8 + 4) + 3, adc_conversions=4 * 8 + 3)
    _, ledger = product(bank, np.ones((3, 16)), 16, transposed=True)
    assert tools.counts(ledger) == Ledger(mvm_shots=5, dac_conversions=4 * 8 + 3, adc_conversions=2 * (8 + 4) + 3)
    assert bank.nbytes == 195 * (4 + 4 + 4) + 4 * (2 * (8 + 4) + 3 + 4 * 8 + 3)


def test_lines_in_use_share_an_array_wherever_they_are(tools):
    matrix = np.zeros((16, 16))
    matrix[np.ix_([0, 5, 15], [3, 14])] = 2.0
    bank, _ = program([matrix], tools.chip(tile_size=8, dac=3))
    x = np.full((1, 16), 1e6)
    x[0, [3, 14]] = 1.0, 3.0  # lines that are not driven set no range
    got, ledger = product(bank, x, 16)
    np.testing.assert_allclose(got[0], matrix @ x[0])
    assert tools.counts(ledger) == Ledger(mvm_shots=1, dac_conversions=2, adc_conversions=3)


def test_more_than_two_tiles_of_lines_are_refused(tools):
    with pytest.raises(ValueError, match="more than 16 lines"):
        program([np.ones((17, 3))], tools.chip(tile_size=8))


def test_entries_at_one_place_are_added_up():
    e = Entries.joined([entries([np.array([[1.0, 2.0]]), np.array([[4.0]])]), entries([np.array([[0.0, 3.0]])])])
    assert [e.owner.tolist(), e.row.tolist(), e.col.tolist(), e.value.tolist()] == [[0, 0, 1], [0, 0, 0], [0, 1, 0],
                                                                                    [1.0, 5.0, 4.0]]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_crowded_arrays_give_what_entry_by_entry_gives(tools, monkeypatch, transposed, holes):
    """The sums run in the same order: equal to the last bit. The variance of the noise is squared in FP32: noise of
    1 % is off by 1e-2 · 2^-24 relative to what it is added to; the bound leaves a factor of 100."""
    rng = np.random.default_rng(4)
    matrix = rng.standard_normal((13, 11)) * (rng.random((13, 11)) >= holes)
    x = rng.standard_normal((1, 13))
    got = {}
    for read in (None, 0.01):
        for crowded in (0.5, 2.0):
            monkeypatch.setattr("analogpde.tile.mvm_bank.CROWDED", crowded)
            bank, _ = program([matrix], tools.chip(programming=0.02, read=read, dac=8))
            starts = bank._crowded_columns[0]
            assert (starts[0] >= 0) is np.bool_(crowded < 1)
            got[read, crowded] = product(bank, x if transposed else x[:, :11], 16, transposed=transposed)[0]
    np.testing.assert_array_equal(got[None, 0.5], got[None, 2.0])
    np.testing.assert_allclose(got[0.01, 0.5], got[0.01, 2.0], rtol=0, atol=1e-2 * 2.0**-24 * 100)


def test_infinite_input_to_a_crowded_array_is_no_zero(tools):
    matrix = np.ones((4, 4))
    matrix[0, 1] = 0.0
    bank, _ = program([matrix], tools.chip())
    x = np.array([[1.0, np.inf, 1.0, 1.0]])
    got = product(bank, x, 4)[0]
    assert np.isfinite(got[0, 0])
    assert not np.isfinite(got[0, 1:4]).any()

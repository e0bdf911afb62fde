"""Static errors: their size, where they are, and that they are drawn once."""

import numpy as np
import pytest

from analogpde.tile.inv import program_bank
from analogpde.tile.noise import Purpose, stream
from analogpde.tile.programming import program, scale_blocks

TILES = 400
SIGMA, READ = 0.03, 0.02


def many(tools, matrix, **how):
    """One block on many tiles: errors of each entry, shape (TILES, entries), and what was wanted."""
    blocks = tools.pack([matrix] * TILES)
    scaled, held = tools.programmed(blocks, tools.chip(bits=how.pop("bits", None), programming=SIGMA, read=READ), **how)
    entries = len(scaled.value) // TILES
    errors = (held.blocks.value - held.intended).reshape(TILES, entries)
    return errors, held, entries


def expected_spread(held, entries, bits, slices, diagonal):
    """Root of the sum of squared weights of the cells that are on, in units of a fully-on cell; from the digits."""
    if bits is None:
        return (held.intended[:entries] != 0) * 1.0
    base = 2**bits
    codes = np.rint(np.abs(held.intended[:entries]) / held.unit[0] * base).astype(int)  # in steps of the trim cell
    spread = np.zeros(entries)
    for e, code in enumerate(codes.tolist()):
        places = [code // base ** (place + 1) % base for place in range(slices)][::-1]
        variance = sum(base ** (-2.0 * s) for s, digit in enumerate(places) if digit)
        if code % base:
            assert diagonal[e]
            variance += base ** (-2.0 * slices)
        spread[e] = np.sqrt(variance)
    return spread


@pytest.mark.parametrize(("bits", "slices"), [(None, 1), (1, 1), (3, 1), (3, 2), (2, 3), (8, 1)])
def test_spread_of_the_programming_error(tools, bits, slices):
    matrix = tools.lognormal(5, 4.0)
    errors, held, entries = many(tools, matrix, bits=bits, slices=slices)
    diagonal = np.equal(*np.nonzero(matrix))
    spread = expected_spread(held, entries, bits, slices, diagonal)
    on = spread > 0
    assert on.any()
    if bits is not None and bits * slices < 8:
        assert (~on).any()  # entries below half a level are cells that are off
    assert (errors[:, ~on] == 0).all()
    np.testing.assert_allclose(held.read_deviation[:entries], READ * spread * held.largest[0], rtol=1e-12)
    normalised = errors[:, on] / (SIGMA * held.largest[0] * spread[on])
    # Each group of equal spread by itself: mean 0, variance 1 ± 5·sqrt(2/N); N draws.
    for value in np.unique(np.round(spread[on], 9)):
        group = normalised[:, np.isclose(spread[on], value)]
        assert abs(group.mean()) < 5 / np.sqrt(group.size)
        assert abs(np.mean(group**2) - 1) < 5 * np.sqrt(2 / group.size)


def test_errors_of_different_entries_and_tiles_are_independent(tools):
    errors, _, entries = many(tools, tools.grid(3, 3), bits=3)
    z = errors / errors.std(axis=0)
    bound = 5 / np.sqrt(TILES)
    products = z.T @ z / TILES - np.eye(entries)
    assert np.abs(products - np.diag(np.diag(products))).max() < bound
    assert abs(np.mean(z[1:] * z[:-1])) < 5 / np.sqrt(z.size)


@pytest.mark.parametrize("bits", [3, 4])
def test_zeros_stay_zeros(tools, family, bits):
    _, held = tools.programmed(tools.pack([family]), tools.chip(bits=bits, programming=0.05, read=0.05))
    off = held.intended == 0
    assert (held.blocks.value[off] == 0).all()
    assert (held.read_deviation[off] == 0).all()
    assert (held.blocks.value[~off] != held.intended[~off]).all()


def test_drawn_once_for_a_programming(tools):
    chip = tools.chip(bits=3, programming=0.02, read=0.01, dac=4, adc=4)
    blocks = tools.pack([tools.grid(6, 6)] * 3)

    def inverse(seed=0, name="", event=0):
        return program_bank(blocks, chip, seed=seed, name=name, event=event).factors.inverse()

    first = inverse()
    np.testing.assert_array_equal(first, inverse())
    assert (first[0] != first[1]).any()
    for other in (inverse(seed=1), inverse(name="heat_"), inverse(event=1)):
        assert np.abs(other - first).max() > 1e-3 * np.abs(first).max()


def test_shots_do_not_change_what_is_programmed(tools):
    chip = tools.chip(bits=3, programming=0.02, read=0.01, dac=4, adc=4)
    bank = program_bank(tools.pack([tools.grid(6, 6)] * 2), chip)
    before = bank.factors.data.copy(), bank.deviation.copy()
    for event in range(5):
        bank.shoot(np.ones((2, 36)), event)
    np.testing.assert_array_equal(bank.factors.data, before[0])
    np.testing.assert_array_equal(bank.deviation, before[1])


def test_bank_holds_the_inverse_of_the_first_stable_programming(tools):
    chip = tools.chip(bits=4, programming=0.01)
    matrix = tools.grid(6, 6)
    blocks = tools.pack([matrix], first_tile=9)
    bank = program_bank(blocks, chip, seed=5, name="a_", event=3)
    assert bank.programmed.tiles_reprogrammed == 0
    scaled, scale, sign = scale_blocks(blocks)
    held = program(scaled, scale, sign, chip, seed=5, name="a_", event=3 * 8)
    exact = np.linalg.inv(held.blocks.dense()[0])
    # inversion in float32: relative error at most about sqrt(n) u κ (n = 36, κ of the block about 25)
    kappa = np.linalg.cond(held.blocks.dense()[0])
    error = np.linalg.norm(bank.factors.inverse()[0] - exact, 2)
    assert error < 6 * tools.unit_roundoff * kappa * np.linalg.norm(exact, 2)


def test_programming_and_reading_never_share_draws(tools):
    words = {stream(purpose, name) for purpose in Purpose for name in ("", "heat_")}
    assert len(words) == 2 * len(Purpose)
    bank = program_bank(tools.pack([tools.grid(2, 2)]), tools.chip(read=0.01), name="heat_")
    assert bank.word == stream(Purpose.READ, "heat_")

"""Read noise: first order against its covariance, drawn cells against explicit dense solves."""

import dataclasses

import numpy as np
import pytest

from analogpde.tile.inv import FIRST_ORDER, program_bank
from analogpde.tile.noise import Purpose, read_normal, stream
from analogpde.tile.programming import scale_blocks

TILES, EVENTS = 200, 25  # 5000 shots of one block


def shots(bank, b):
    """All draws of the solutions of the scaled system, shape (TILES·EVENTS, n)."""
    out = []
    for event in range(EVENTS):
        x = np.broadcast_to(b, (bank.count, len(b))).copy()
        bank.shoot(x, event)
        out.append(x / bank.scale)
    return np.concatenate(out)


def cells(bank):
    """Row and column of every cell with read noise; the bank knows them by their places in the elimination."""
    owner = np.repeat(np.arange(bank.count), np.diff(bank.offsets))
    return bank.factors.rows[owner, bank.row], bank.factors.cols[owner, bank.col]


def setting(tools, matrix, read, drawn=None, tiles=TILES, **errors):
    bank = program_bank(tools.pack([matrix] * tiles), tools.chip(read=read, **errors))
    if drawn is not None:
        bank.drawn[:] = drawn
    n = len(matrix)
    entries = np.count_nonzero(matrix)
    row, col = (index[:entries] for index in cells(bank))
    sigma = np.zeros((n, n))
    sigma[row, col] = bank.deviation[:entries]
    scaled = scale_blocks(tools.pack([matrix]))[0].dense()[0]
    return bank, scaled, sigma


def assert_covariance(draws, expected, relative_slack):
    """Sample covariance against the formula: entry ij of N draws has variance (C_ii C_jj + C_ij²)/N; 5 deviations."""
    count = len(draws)
    sample = draws.T @ draws / count
    c = np.diag(expected)
    deviation = np.sqrt((np.outer(c, c) + expected**2) / count)
    assert (np.abs(sample - expected) <= 5 * deviation + relative_slack * np.sqrt(np.outer(c, c))).all()


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("block", ["grid", "triangular", "unsymmetric", "negative"])
def test_covariance(tools, drawn, block):
    triangular = 2 * np.eye(12) - np.eye(12, k=-1) - 0.5 * np.eye(12, k=-4)  # rows and columns must not be mixed up
    matrix = {"grid": tools.grid(3, 4), "triangular": triangular, "unsymmetric": tools.wind(3, 2.0, upwind=True),
              "negative": -tools.lognormal(3, 0.7)}[block]
    bank, g, sigma = setting(tools, matrix, 0.002, drawn)
    assert bank.delta < 0.05
    b = np.random.default_rng(2).normal(size=len(matrix))
    x = np.linalg.solve(matrix, b) / bank.scale[0]
    inverse = np.linalg.inv(g)
    expected = inverse @ np.diag(sigma**2 @ x**2) @ inverse.T
    draws = shots(bank, b) - x
    # the formula is of first order: relative errors of the covariance are of order δ² < 0.003 (both ways of drawing)
    assert_covariance(draws, expected, 0.01)
    # mean: standard error, and the second-order bias of at most δ²/2 of a deviation
    assert (np.abs(draws.mean(axis=0)) <= 5.05 * np.sqrt(np.diag(expected) / len(draws))).all()


def test_deviation_of_cells(tools):
    _, g, sigma = setting(tools, tools.grid(3, 4), 0.002, tiles=1)
    np.testing.assert_allclose(sigma, 0.002 * (g != 0), rtol=1e-6)  # continuous cells: the same on all that are on


def explicit(bank, tools, matrix, b, event, transposed=False, name=""):
    """Solve every tile with all cells drawn, by numpy, from the same random numbers."""
    errors = read_normal(bank.offsets, seed=bank.seed, word=stream(Purpose.READ, name), tiles=bank.tiles, event=event)
    scaled = scale_blocks(tools.pack([matrix]))[0].dense()[0]
    row, col = cells(bank)
    out = []
    for k in range(bank.count):
        part = slice(bank.offsets[k], bank.offsets[k + 1])
        noisy = scaled.copy()
        noisy[row[part], col[part]] += errors[part] * bank.deviation[part]
        out.append(np.linalg.solve(noisy.T if transposed else noisy, b * bank.scale[k]) * bank.scale[k])
    return np.array(out)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("block", "read"), [
    ("grid", 0.001), ("grid", 0.02), ("odd band", 0.01), ("full", 0.01), ("unsymmetric", 0.01), ("one row", 0.01)])
def test_drawn_cells_are_solved_exactly(tools, block, read, transposed):
    matrix = {"grid": tools.grid(5, 5), "odd band": tools.grid(3, 7), "full": tools.random_spd(19, 20.0, 0),
              "unsymmetric": tools.wind(4, 2.0, upwind=True), "one row": np.array([[2.0]])}[block]
    bank, *_ = setting(tools, matrix, read, drawn=True, tiles=11)  # a full group of eight and one with lanes to spare
    b = np.random.default_rng(3).normal(size=len(matrix))
    x = np.broadcast_to(b, (11, len(b))).copy()
    bank.shoot(x, 8, transposed=transposed)
    exact = explicit(bank, tools, matrix, b, 8, transposed=transposed)
    # elimination in float32, multipliers about 1 or below: κ√n u, 20·5·6e-8 = 6e-6, threefold
    assert (np.abs(x - exact).max(axis=1) <= 2e-5 * np.abs(exact).max(axis=1)).all()
    quiet = np.linalg.solve(matrix.T if transposed else matrix, b)
    difference = np.abs(exact - quiet).max(axis=1) / np.abs(exact).max(axis=1)
    assert np.median(difference) > 0.2 * read  # the noise itself is far above the bound, or the test says nothing
    assert bank.dense_solves == 0


def broken(tools, tiles):
    """A bank with noise far beyond what program_bank allows: small pivots on some tiles."""
    matrix = tools.chain(20)
    bank, *_ = setting(tools, matrix, 0.0005, drawn=True, tiles=tiles)
    bank.deviation *= np.float32(1000.0)
    return matrix, bank


def test_rows_are_exchanged_where_elimination_would_grow(tools):
    matrix, bank = broken(tools, 200)
    b = np.random.default_rng(3).normal(size=20)
    x = np.broadcast_to(b, (200, 20)).copy()
    bank.shoot(x, 1)
    # pivots of deviation σ ≈ 0.5 are below a hundredth of their neighbours 4000 · 0.01 · σ/(σ √2π) ≈ 16 times
    assert 3 <= bank.dense_solves <= 50
    exact = explicit(bank, tools, matrix, b, 1)
    errors = np.abs(x - exact).max(axis=1) / np.abs(exact).max(axis=1)
    # multipliers up to 100 lose two of FP32's seven digits, and κ what it will: by the median, and all
    assert np.median(errors) < 1e-5
    assert (errors < 1e-2).all()


def test_dense_solves_are_added_up(tools):
    _, bank = broken(tools, 200)
    b = np.ones((200, 20))
    counts = []
    for event in (1, 2):
        bank.shoot(b.copy(), event)
        counts.append(bank.dense_solves)
    assert counts[1] > counts[0] > 0


def test_infinite_inputs_stay_in_their_tile(tools):
    bank, *_ = setting(tools, tools.grid(3, 3), 0.01, drawn=True, tiles=9)
    x = np.ones((9, 9))
    bank.shoot(x, 0)
    y = np.ones((9, 9))
    y[1, 4], y[3, 2] = np.inf, np.nan
    bank.shoot(y, 0)
    whole = np.delete(np.arange(9), [1, 3])
    np.testing.assert_array_equal(y[whole], x[whole])
    assert not np.isfinite(y[[1, 3]]).any() and bank.dense_solves == 0


def test_a_tile_answers_the_same_in_any_company(tools):
    def answers(matrices, chosen):
        blocks = dataclasses.replace(tools.pack([matrices[k] for k in chosen]), tiles=np.array(chosen))
        bank = program_bank(blocks, tools.chip(read=0.003))
        bank.drawn[:] = np.array(chosen) % 2 == 0
        x = np.ones((len(chosen), blocks.size))
        bank.shoot(x, 3)
        return {k: row[: len(matrices[k])] for k, row in zip(chosen, x, strict=True)}

    matrices = [tools.grid(3, 3), tools.chain(7), tools.random_spd(8, 9.0, 1), tools.grid(2, 4), tools.grid(3, 2)] * 2
    whole = answers(matrices, list(range(10)))
    for chosen in ([7, 2, 0], [4], [9, 1]):
        for k, row in answers(matrices, chosen).items():
            np.testing.assert_array_equal(row, whole[k])  # wherever it stands, to the last bit


@pytest.mark.parametrize("drawn", [False, True])
def test_the_same_event_repeats_and_another_does_not(tools, drawn):
    def make():
        return setting(tools, tools.grid(4, 4), 0.005, drawn, tiles=3, bits=4, programming=0.01, dac=6, adc=8)[0]

    def shoot(bank, event):
        x = np.ones((3, 16))
        bank.shoot(x, event)
        return x

    bank = make()
    first = shoot(bank, 5)
    other = shoot(bank, 6)
    np.testing.assert_array_equal(shoot(bank, 5), first)  # to the last bit, whatever was shot in between
    np.testing.assert_array_equal(shoot(make(), 5), first)
    assert (first != other).any(axis=1).all()
    assert (first[0] != first[1]).any()  # and no two tiles draw the same


@pytest.mark.parametrize("change", [{"seed": 1}, {"name": "heat_"}])
def test_seed_and_name_key_the_noise(tools, change):
    def shoot(**key):
        x = np.ones((1, 16))
        program_bank(tools.pack([tools.grid(4, 4)]), tools.chip(read=0.005), **key).shoot(x, 0)
        return x

    assert (shoot(**change) != shoot()).any()


def test_without_read_noise_all_events_are_the_same(tools):
    bank = program_bank(tools.pack([tools.grid(4, 4)]), tools.chip(bits=4, programming=0.01, dac=4, adc=4))
    assert bank.deviation.size == 0
    x, y = np.ones((1, 16)), np.ones((1, 16))
    bank.shoot(x, 0)
    bank.shoot(y, 1)
    np.testing.assert_array_equal(x, y)


def test_tiles_that_amplify_are_drawn_cell_by_cell(tools):
    bank = program_bank(tools.pack([tools.grid(4, 4), tools.chain(40)]), tools.chip(read=0.0015))
    assert bank.drawn.tolist() == [False, True]
    assert bank.delta > FIRST_ORDER
    deviation = bank.deviation.max()
    for matrix, drawn in zip((tools.grid(4, 4), tools.chain(40)), bank.drawn, strict=True):
        fullest = np.count_nonzero(matrix, axis=1).max()
        delta = 2 * deviation * np.sqrt(fullest) * np.linalg.norm(np.linalg.inv(tools.scaled(matrix)), 2)
        assert (delta > FIRST_ORDER) == drawn


def test_first_order_and_drawn_agree_where_they_meet(tools):
    # at δ = 0.3 circuit theory has the rms of the error within 1 % of first order; sampling adds 5 sqrt(1/2N)
    matrix = tools.grid(4, 4)
    rms = []
    for drawn in (False, True):
        bank, g, _ = setting(tools, matrix, 0.01, drawn)
        assert 0.2 < bank.delta < 0.35
        b = np.random.default_rng(4).normal(size=16)
        draws = shots(bank, b) - np.linalg.solve(g, b * bank.scale[0])
        rms.append(np.sqrt(np.mean(draws**2)))
    assert rms[1] == pytest.approx(rms[0], rel=0.02 + 5 * np.sqrt(1 / len(draws)))

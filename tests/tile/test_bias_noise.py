"""Read noise of a bias column, which all entries of a row share: against explicit draws and dense algebra."""

from dataclasses import replace

import numpy as np
import pytest

from analogpde.chip import Cell, Chip
from analogpde.errors import ProgrammingFailed
from analogpde.tile.cells import BIAS
from analogpde.tile.health import bias_sway
from analogpde.tile.inv import LARGEST_SWAY, program_bank
from analogpde.tile.mvm_bank import Entries, program_mvm
from analogpde.tile.noise import Purpose, read_normal, stream
from analogpde.tile.sharing import share

TILES, EVENTS = 100, 40
READ = 0.002


def chip(read=READ, bits=None):
    return Chip("x", tile_size=32, cell=Cell(bits=bits, read_noise=read, sign_mapping="bias"))


def banked(tools, matrix, tiles=TILES, **how):
    return program_bank(tools.pack([matrix] * tiles), chip(**how))


def held(bank, k):
    """What tile k solves without noise, and deviations of its cells, by rows and columns of the block."""
    here = slice(bank.offsets[k], bank.offsets[k + 1])
    row, col = bank.factors.rows[k, bank.row[here]], bank.factors.cols[k, bank.col[here]]
    matrix = np.linalg.inv(bank.factors.inverse()[k].astype(float))
    sigma = np.zeros(matrix.shape)
    sigma[row, col] = bank.deviation[here]
    return matrix, sigma, row, col


def explicit(bank, b, event, transposed):
    """Answers of the scaled tiles with all cells drawn, those of the bias column included; and 1ᵀĜ⁻¹η."""
    draws = read_normal(bank.offsets, seed=bank.seed, word=bank.word, tiles=bank.tiles, event=event)
    n = len(b)
    shared = read_normal(np.arange(bank.count + 1) * n, seed=bank.seed, word=stream(Purpose.READ, BIAS),
                         tiles=bank.tiles, event=event).reshape(bank.count, n) * bank.shared[:, None]
    out, sway = [], []
    for k in range(bank.count):
        matrix, sigma, row, col = held(bank, k)
        sway.append(np.linalg.solve(matrix, shared[k]).sum())
        matrix[row, col] += draws[bank.offsets[k]: bank.offsets[k + 1]] * sigma[row, col]
        matrix -= shared[k][:, None]
        out.append(np.linalg.solve(matrix.T if transposed else matrix, b))
    return np.array(out), np.array(sway)


@pytest.mark.parametrize("transposed", [False, True])
def test_drawn_cells_and_a_bias_column_are_solved_exactly(tools, transposed):
    bank = banked(tools, tools.wind(4, 1.0, upwind=True), tiles=11)
    bank.drawn[:] = True
    b = np.random.default_rng(0).normal(size=16)
    x = b / bank.scale
    bank.shoot(x, 5, transposed=transposed)
    exact, sway = explicit(bank, b, 5, transposed)
    # the matrices are inverted from factors in float32 and the tile works in it: κ√n u, 20 · 4 · 6e-8, fivefold
    np.testing.assert_allclose(x / bank.scale, exact, rtol=0, atol=2.5e-5 * np.abs(exact).max())
    assert np.abs(sway).max() > 100 * 2.5e-5  # by which answers would be off without that noise
    assert bank.dense_solves == 0


def test_rows_are_exchanged_with_a_bias_column_too(tools):
    bank = banked(tools, tools.chain(20), tiles=60)
    bank.drawn[:] = True
    bank.deviation *= np.float32(300.0)
    b = np.ones(20)
    for transposed in (False, True):
        before = bank.dense_solves
        x = b / bank.scale
        bank.shoot(x, 1, transposed=transposed)
        assert bank.dense_solves > before + 2
        exact, _ = explicit(bank, b, 1, transposed)
        errors = np.abs(x / bank.scale - exact).max(axis=1) / np.abs(exact).max(axis=1)
        assert np.median(errors) < 1e-4  # multipliers of 100 lose two of seven digits, κ what it will


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("way", ["drawn", "factors", "inverses"])
def test_covariance(tools, monkeypatch, way, transposed):
    """Ĝ⁻¹ (diag(σ²x²) + σ_b² (1ᵀx)² I) Ĝ⁻ᵀ; transposed all columns see the same, σ_b² ‖x‖² 11ᵀ."""
    if way == "factors":
        monkeypatch.setattr("analogpde.tile.inv.worth_it", lambda factors: False)
    bank = banked(tools, tools.grid(3, 4), read=0.0005)
    bank.drawn[:] = way == "drawn"
    assert (bank._inverses is not None) == (way == "inverses")
    g, sigma, *_ = held(bank, 0)
    b = np.random.default_rng(2).normal(size=12)
    quiet = np.linalg.solve(g.T if transposed else g, b)
    answers = []
    for event in range(EVENTS):
        x = b / bank.scale
        bank.shoot(x, event, transposed=transposed)
        answers.append(x / bank.scale)
    off = np.concatenate(answers) - quiet
    own = np.diag((sigma.T if transposed else sigma) ** 2 @ quiet**2)
    common = np.ones((12, 12)) * (quiet**2).sum() if transposed else np.eye(12) * quiet.sum() ** 2
    inverse = np.linalg.inv(g.T if transposed else g)
    expected = inverse @ (own + bank.shared[0] ** 2 * common) @ inverse.T
    sample = off.T @ off / len(off)
    c = np.diag(expected)
    deviation = np.sqrt((np.outer(c, c) + expected**2) / len(off))  # of a sample covariance; five of them
    # to first order: relative errors of order (4 · sway)²
    slack = bank.delta**2
    assert slack < 0.01
    assert (np.abs(sample - expected) <= 5 * deviation + slack * np.sqrt(np.outer(c, c))).all()
    assert (np.diag(inverse @ own @ inverse.T) < 0.9 * c).any()  # the bias column matters


def test_shots_of_a_bank_keep_a_distance_from_instability(tools):
    bank = banked(tools, tools.grid(4, 4), tiles=400, read=0.02)
    assert bank.programmed.tiles_reprogrammed > 0  # as it came first it was too sensitive
    g, *_ = held(bank, 0)
    deviation = bank.shared[0] * np.linalg.norm(np.linalg.solve(g.T, np.ones(16)))
    assert LARGEST_SWAY * deviation <= bank.delta * (1 + 1e-5) <= 1 + 1e-5
    _, sway = explicit(bank, np.ones(16), 0, False)
    # deviation of a sample deviation 1/√(2 N), four of them; a tile loses stability at one
    assert abs(np.std(sway) / deviation - 1) < 4 / np.sqrt(800)
    assert sway.max() < 1


def test_the_sway_is_that_of_draws(tools):
    bank = banked(tools, tools.wind(4, 1.0, upwind=True), tiles=2)

    class Trial:
        rows, sizes, data, groups = bank.factors.rows, bank.factors.sizes, bank.factors.data, bank.factors

    g, *_ = held(bank, 0)
    expected = np.array([0.1, 0.2]) * np.linalg.norm(np.linalg.inv(g).sum(axis=0))
    np.testing.assert_allclose(bias_sway(Trial, np.array([0.1, 0.2])), expected, rtol=1e-4)


def test_no_shift_is_enough_for_loud_bias_cells(tools):
    with pytest.raises(ProgrammingFailed, match="stay unstable"):
        banked(tools, tools.grid(4, 4), tiles=1, read=0.2)


def test_bias_cells_are_as_loud_as_the_cells_of_an_entry(tools):
    bank = banked(tools, tools.grid(3, 4), tiles=3, bits=4)
    # the diagonal has a trim cell beside, the others are one cell each
    np.testing.assert_allclose(bank.shared[:, None] * np.ones(144), bank.deviation.reshape(3, 144), rtol=0.01)
    assert (bank.shared[:, None] <= bank.deviation.reshape(3, 144) * (1 + 1e-6)).all()
    pairs = program_bank(tools.pack([tools.grid(3, 4)]), tools.chip(read=READ))
    assert not pairs.shared.size


def test_blocks_that_share_a_tile_share_its_deviation(tools):
    bank = program_bank(tools.pack([tools.grid(3, 4), tools.grid(4, 4)]), chip())
    label = np.array([1, 0, 1])
    several = share(bank, label, scale=bank.scale[label], sign=bank.sign[label], kept=bank.kept[label],
                    tiles=np.array([0, 1, 2]))
    x = np.ones((3, 16))
    several.shoot(x, 4)
    again = program_bank(tools.pack([tools.grid(4, 4), tools.grid(3, 4), tools.grid(4, 4)]), chip())
    y = np.ones((3, 16))
    again.shoot(y, 4)
    np.testing.assert_allclose(x, y, rtol=1e-5)


@pytest.mark.parametrize("through", ["nothing", "lines"])
@pytest.mark.parametrize("transposed", [False, True])
def test_covariance_of_products(through, transposed):
    a = np.random.default_rng(0).normal(size=(6, 5))
    i, j = np.nonzero(a)
    k = np.repeat(np.arange(TILES), len(i))
    entries = Entries(k, np.tile(i, TILES), np.tile(j, TILES), np.tile(a[i, j], TILES))
    mine = chip(read=0.01)
    if through == "lines":
        mine = replace(mine, amplifier=replace(mine.amplifier, offset=1e-12))
    bank, _ = program_mvm(entries, np.arange(TILES), mine)
    assert (bank.circuit is None) == (through == "nothing")
    x = np.random.default_rng(1).normal(size=6 if transposed else 5)
    answers = []
    for event in range(EVENTS):
        y = np.zeros((TILES, 6))
        bank.subtract(np.broadcast_to(x, (TILES, len(x))), y, event, transposed=transposed)
        answers.append(-y[:, : 5 if transposed else 6])
    off = np.concatenate(answers) - (a.T @ x if transposed else a @ x)
    sigma = bank.deviation[:30].reshape(6, 5)
    assert (sigma == sigma[0, 0]).all() and np.isclose(sigma[0, 0], bank.shared[0], rtol=1e-6)
    if transposed:
        expected = sigma[0, 0] ** 2 * (x @ x) * (np.eye(5) + np.ones((5, 5)))
    else:
        expected = sigma[0, 0] ** 2 * (x @ x + x.sum() ** 2) * np.eye(6)
    sample = off.T @ off / len(off)
    c = np.diag(expected)
    assert (np.abs(sample - expected) <= 5 * np.sqrt((np.outer(c, c) + expected**2) / len(off))).all()

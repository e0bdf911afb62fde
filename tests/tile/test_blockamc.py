"""BlockAMC: blocks of two and four tiles against the matrix itself, one tile's errors, and the counts of the method."""

import numpy as np
import pytest

from analogpde.chip import load
from analogpde.cost import Ledger
from analogpde.errors import ProgrammingFailed
from analogpde.tile import blockamc
from analogpde.tile.blockamc import BlockAmcBank, depth_needed, program_blocks
from analogpde.tile.blocks import Blocks
from analogpde.tile.elimination import band_order
from analogpde.tile.inv import InvBank, program_bank


def tile_for(matrix, depth):
    """The smallest tile on which blocks of this size need halving `depth` times."""
    return -(-len(matrix) // 2**depth)


def programmed(tools, matrices, depth, first_tile=0, chip=None, kept=None, **how):
    tile = tile_for(max(matrices, key=len), depth)
    errors = how.pop("errors", {})
    chip = tools.chip(tile_size=tile, **errors) if chip is None else chip.replace(tile_size=tile)
    return program_blocks(tools.pack(matrices, first_tile), chip, depth=depth, kept=kept, **how)


def answers(bank, b, event=0, transposed=False):
    x = b.copy()
    bank.shoot(x, event, transposed=transposed)
    return x


def as_matrix(bank, n):
    """The linear map of the first block of a bank without read noise and converters."""
    unit = np.zeros((bank.count, n))
    columns = []
    for j in range(n):
        unit[:] = 0.0
        unit[0, j] = 1.0
        columns.append(answers(bank, unit)[0, :n])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("depth", [1, 2])
def test_ideal_tiles_solve_as_float32_does(tools, family, depth):
    if len(family) < 4:
        pytest.skip("nothing to halve")
    bank = programmed(tools, [family], depth)
    assert isinstance(bank, BlockAmcBank)
    root = np.sqrt(np.abs(np.diag(family)))
    b = np.random.default_rng(1).normal(size=len(family)) * root
    scaled = tools.scaled(family)
    # Block elimination in float32, each part solved with an error of 4 (κ + 2) √n u as one tile (see test_inv): κ of
    # both parts of a definite block is at most κ of the block. Three solves follow each other at each level.
    kappa = np.linalg.norm(np.linalg.inv(scaled), 2) * np.linalg.norm(scaled, 2)
    error = np.linalg.norm((answers(bank, b[None])[0] - np.linalg.solve(family, b)) * root)
    inverse = np.linalg.norm(np.linalg.inv(scaled), 2)
    bound = 3**depth * 4 * (kappa + 2) * np.sqrt(len(family)) * tools.unit_roundoff * inverse * np.linalg.norm(b / root)
    assert 0 < error <= bound


@pytest.mark.parametrize("depth", [1, 2])
def test_adjoint_of_noise_free_tiles(tools, family, depth):
    if len(family) < 4:
        pytest.skip("nothing to halve")
    bank = programmed(tools, [family, family], depth, errors={"bits": 6, "programming": 0.01})
    rng = np.random.default_rng(0)
    root = np.sqrt(np.abs(np.diag(family)))
    u, v = rng.normal(size=(2, 2, len(family))) * root
    forth, back = answers(bank, u), answers(bank, v, transposed=True)
    size = sum(np.linalg.norm(x * root) * np.linalg.norm(y / root) for x, y in ((forth, v), (back, u)))
    # as on one tile, in float32, times the solves in sequence
    assert abs((forth * v).sum() - (u * back).sum()) <= 1e-5 * size
    assert abs((forth * v).sum()) > 1e-3 * size / len(family)


# ---- counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "inv", "mvm"), [(1, 3, 2), (2, 9, 14)])
@pytest.mark.parametrize("count", [1, 3])
def test_counts_of_the_method(tools, depth, inv, mvm, count):
    # a full matrix: one stage 3 INV and 2 products; two stages 9 INV, 3 · 2 products inside them, and 2 · 4 outside
    n = 16
    bank = programmed(tools, [tools.random_spd(n, 10.0, seed) for seed in range(count)], depth)
    tile = n >> depth
    for transposed in (False, True):
        ledger = bank.shoot(np.ones((count, n)), 0, transposed=transposed)
        lines = count * (inv + mvm) * tile
        assert tools.counts(ledger) == Ledger(inv_shots=count * inv, mvm_shots=count * mvm, dac_conversions=lines,
                                              adc_conversions=lines)
        assert ledger.rounds == inv + (2 if depth == 1 else 3 * 2 + 2)  # the four arrays of a product work at once
        assert ledger.inv_products == count * inv * tile**2
    assert bank.programmed.tiles_programmed == count * 4**depth
    # every entry of every array is a cell, A and its Schur complements being full
    assert bank.programmed.cells_written == count * n * n


def test_what_is_not_coupled_is_not_multiplied(tools):
    matrix = np.kron(np.eye(4), tools.random_spd(4, 5.0, 1))
    bank = programmed(tools, [matrix], 2)
    assert tools.counts(bank.shoot(np.ones((1, 16)), 0)) == Ledger(inv_shots=9, dac_conversions=36, adc_conversions=36)
    chain = programmed(tools, [tools.chain(32)], 2)
    # one link from half to half: each product drives one line and reads one
    assert tools.counts(chain.shoot(np.ones((1, 32)), 0)) == Ledger(
        inv_shots=9, mvm_shots=8, dac_conversions=80, adc_conversions=80)


@pytest.mark.parametrize(("rows", "tile", "depth"), [(0, 4, 0), (1, 1, 0), (4, 4, 0), (5, 4, 1), (8, 4, 1), (9, 4, 2),
                                                     (16, 4, 2), (17, 4, 3), (1024, 512, 1), (2048, 512, 2)])
def test_depth_needed(rows, tile, depth):
    assert depth_needed(rows, tile) == depth


def test_a_block_beyond_the_depth_is_refused(tools):
    with pytest.raises(ProgrammingFailed, match="17 rows exceeds 4 tiles of 4"):
        program_blocks(tools.pack([tools.chain(17)]), tools.chip(tile_size=4), depth=2)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("block", ["random", "lognormal", "quadratic", "biharmonic"])
def test_rounding_leaves_a_matrix_at_least_as_large(tools, block, depth):
    # 3-bit cells, no other error. What the tiles hold together is A plus a positive semidefinite matrix, whatever the
    # condition: so refinement with it converges, 0 <= I − M⁻¹A < 1. With the Schur complement of A itself, not of what
    # A1, A2 and A3 were rounded to, `random` would be amplified by its condition.
    matrix = {"random": tools.random_spd(32, 1e4, 2), "lognormal": tools.lognormal(7, 2.0),
              "quadratic": tools.quadratic(3), "biharmonic": tools.grid(6, 6) @ tools.grid(6, 6)}[block]
    bank = programmed(tools, [matrix], depth, errors={"bits": 3}, shift=0.0)
    assert bank.programmed.tiles_reprogrammed == 0
    root = np.sqrt(np.diag(matrix))
    m = as_matrix(bank, len(matrix)) * np.outer(root, root)
    np.testing.assert_allclose(m, m.T, atol=1e-5 * np.abs(m).max())
    rest = np.linalg.eigvals(np.eye(len(matrix)) - m @ tools.scaled(matrix))
    slack = 3**depth * np.linalg.cond(m) * len(m) * tools.unit_roundoff
    assert -slack <= rest.real.min() and rest.real.max() < 1.0
    assert rest.real.max() > 0.1  # the cells are coarse


def test_programming_error_spreads_as_elimination_says(tools):
    # First order: what is held is A + E, E = [E1 E2; E3 E4 + E3 W + V E2 − V E1 W], W = A1⁻¹A2, V = A3 A1⁻¹, with
    # independent cells in E1, E2, E3 and in E4, the array of the Schur complement; the error of x is −A⁻¹ E x.
    matrix = tools.random_spd(12, 4.0, 1)
    matrix /= np.sqrt(np.outer(np.diag(matrix), np.diag(matrix)))
    count, sigma = 2000, 0.002
    bank = programmed(tools, [matrix] * count, 1, errors={"programming": sigma}, shift=0.0)
    assert bank.programmed.tiles_reprogrammed == 0
    order = bank.order[0]
    a = matrix[np.ix_(order, order)]
    a1, a2, a3, a4 = a[:6, :6], a[:6, 6:], a[6:, :6], a[6:, 6:]
    w, v = np.linalg.solve(a1, a2), np.linalg.solve(a1.T, a3.T).T
    s = a4 - a3 @ w
    b = np.random.default_rng(3).normal(size=12)
    x = np.linalg.solve(a, b[order])
    y, z = x[:6], x[6:]
    g = np.linalg.inv(a)
    # the largest conductance: of A1 its diagonal, 1; of S the diagonal too, each row and column with its own scale
    scales = np.sqrt(np.outer(np.diag(s), np.diag(s)))
    # E1 is met by y and by −V … W z: cell (i, j) does g_i y_j − (g V)_i (W z)_j
    first = g[:, :6, None] * y - (g[:, 6:] @ v)[:, :, None] * (w @ z)
    second = (g[:, :6] + g[:, 6:] @ v)[:, :, None] * z * np.abs(a2).max()
    third = g[:, 6:, None] * (y + w @ z) * np.abs(a3).max()
    fourth = g[:, 6:, None] * z * scales
    expected = sigma**2 * sum((part**2).sum(axis=(1, 2)) for part in (first, second, third, fourth))
    error = (answers(bank, np.tile(b, (count, 1))) - np.linalg.solve(matrix, b))[:, order]
    # a variance of N draws is off by √(2/N) of itself: five of these; second order is σ² κ² n, below a percent
    np.testing.assert_allclose((error**2).mean(axis=0), expected, rtol=5 * np.sqrt(2 / count) + 0.01)


@pytest.mark.parametrize("chip", ["pku2025", "rram128"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("block", ["poisson", "lognormal", "random"])
def test_errors_are_about_those_of_one_tile(tools, chip, depth, block):
    matrix = {"poisson": tools.grid(8, 8), "lognormal": tools.lognormal(8, 1.0),
              "random": tools.random_spd(64, 1e3, 4)}[block]
    wanted = np.random.default_rng(2).normal(size=(12, 64))
    wanted[:6] = 1.0

    def error(depth):
        bank = programmed(tools, [matrix] * 12, depth, chip=load(chip), slices=2)
        e = answers(bank, wanted @ matrix) - wanted
        return np.sqrt(np.einsum("ki,ij,kj->", e, matrix, e) / np.einsum("ki,ij,kj->", wanted, matrix, wanted))

    # In the energy norm the systematic part, rounding and shift, is below 1 on one tile and on several. Measured on
    # the blocks of the catalogue BlockAMC is 0.4 to 1.5 times one tile; an error amplified by κ would be tens of times.
    assert error(depth) <= 2 * error(0)
    assert error(depth) < 1.0


@pytest.mark.parametrize("depth", [1, 2])
def test_draws_are_keyed_and_no_block_disturbs_another(tools, depth):
    chip = load("pku2025")
    matrices = [tools.grid(6, 6), tools.lognormal(6, 1.0), tools.chain(5), -tools.random_spd(36, 9.0, 1)]
    b = np.random.default_rng(4).normal(size=(4, 36))

    def shot(first_tile=0, event=0, **how):
        return answers(programmed(tools, matrices, depth, first_tile, chip=chip, **how), b, event)

    x = shot()
    np.testing.assert_array_equal(x, shot())
    np.testing.assert_array_equal(x[2, 5:], b[2, 5:])  # beyond a block's rows nothing is touched
    for other in (shot(first_tile=9), shot(seed=1), shot(name="a"), shot(event=1)):
        assert (other[[0, 1, 3]] != x[[0, 1, 3]]).any(axis=1).all()
    for k in (0, 1, 3):
        alone = programmed(tools, [matrices[k]], depth, first_tile=k, chip=chip)
        # the same circuit, in float32 in a group of another width: 4-bit converters hide most of it, one code may turn
        close = np.abs(answers(alone, b[k: k + 1])[0] - x[k]) <= np.abs(x[k]).max() / 7 * 1.01
        assert close.all()


def test_both_uses_of_the_first_part_draw_anew(tools):
    matrix = np.eye(8) + 1e-9 * (np.ones((8, 8)) - np.eye(8))  # all but two identities: y shows the second use of A1
    bank = programmed(tools, [matrix], 1, errors={"read": 0.02})
    b = np.random.default_rng(0).normal(size=(1, 8))
    t = b[:, bank.order[0, :4]]
    f = t.copy()
    bank.first.shoot(f, 0)
    assert (answers(bank, b)[0, bank.order[0, :4]] != f[0]).all()
    bank.first.shoot(t, 1)
    np.testing.assert_allclose(answers(bank, b)[0, bank.order[0, :4]], t[0], rtol=1e-7)


# ---- what cannot be held --------------------------------------------------------------------------------------------


def with_parts(target, tools):
    """A matrix that block elimination halves into the given parts; it must be full, so that its order is known."""
    assert (target != 0).all()
    n = len(target)
    order, width = np.zeros((1, n), np.int16), np.zeros(1, np.int64)
    blocks = tools.pack([target])
    band_order(blocks.offsets, blocks.row, blocks.col, blocks.sizes, order, width)
    matrix = np.empty((n, n))
    matrix[np.ix_(order[0], order[0])] = target
    return matrix


def test_a_schur_complement_of_both_signs_is_refused(tools):
    target = np.full((4, 4), 1e-3) + 0.999 * np.eye(4)
    target[0, 2] = target[2, 0] = 3.0  # A1 = I, S = diag(1 − 9, 1)
    with pytest.raises(ProgrammingFailed, match=r"Schur complement of a block that BlockAMC halves.*both signs"):
        programmed(tools, [with_parts(target, tools)], 1)


def test_an_indefinite_matrix_whose_parts_are_stable_is_solved(tools):
    target = np.array([[1.0, 1e-3, 3.0, 3.0], [1e-3, 1.0, 3.0, -3.0], [3.0, 3.0, 1.0, 1e-3], [3.0, -3.0, 1e-3, 1.0]])
    matrix = with_parts(target, tools)
    assert np.linalg.eigvalsh(matrix).min() < -1
    b = np.array([[1.0, -2.0, 3.0, 0.5]])
    np.testing.assert_allclose(answers(programmed(tools, [matrix], 1), b)[0], np.linalg.solve(matrix, b[0]), rtol=1e-5)


def test_an_unstable_part_is_refused(tools):
    with pytest.raises(ProgrammingFailed, match="stay unstable"):
        programmed(tools, [3 * np.ones((4, 4)) - 2 * np.eye(4)], 1)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_singular_block_is_refused_or_held_with_a_shift(tools, depth):
    angle = np.arange(16) * 0.7
    singular = np.cos(angle[:, None] - angle)  # rank 2, unit diagonal
    try:
        bank = programmed(tools, [singular], depth)
    except ProgrammingFailed:
        return
    # held: what is solved is the block and a shift, and a shift makes no residual larger than the right-hand side; 2
    # allows for float32, in which a rank of 2 is one of 16
    x = answers(bank, (singular @ np.ones(16))[None])
    assert np.isfinite(x).all()
    assert np.linalg.norm(singular @ x[0] - singular @ np.ones(16)) <= 2 * np.linalg.norm(singular @ np.ones(16))


def test_a_block_that_answers_its_probe_badly_is_programmed_again_and_then_refused(tools, monkeypatch):
    matrix = tools.grid(6, 6)
    good = programmed(tools, [matrix], 1, chip=load("rram128"))
    limit = blockamc.probe_error(good, tools.pack([matrix]))[0]
    assert 0 < limit < 1
    monkeypatch.setattr(blockamc, "LARGEST_ERROR", 1e-6)
    with pytest.raises(ProgrammingFailed, match=r"answers a probe with an error of .*%"):
        programmed(tools, [matrix], 1, chip=load("rram128"))
    errors = iter([[3.0], [3.0], [0.5]])
    monkeypatch.setattr(blockamc, "LARGEST_ERROR", 2.0)
    monkeypatch.setattr(blockamc, "probe_error", lambda bank, blocks: np.array(next(errors)))
    again = programmed(tools, [matrix], 1, chip=load("rram128"))
    assert again.programmed.tiles_programmed == 3 * 4 and again.programmed.tiles_reprogrammed >= 2 * 4
    assert again.shift > 3 * good.shift  # twice doubled


def test_probe_sees_an_error(tools):
    matrix = tools.grid(6, 6)
    bank = programmed(tools, [matrix], 1)
    assert blockamc.probe_error(bank, tools.pack([matrix]))[0] < 1e-5
    assert blockamc.probe_error(bank, tools.pack([2 * matrix]))[0] == pytest.approx(1.0, abs=1e-5)


# ---- batches --------------------------------------------------------------------------------------------------------


def test_depth_zero_is_a_bank_of_tiles(tools):
    blocks = tools.pack([tools.grid(5, 5), tools.chain(7)])
    chip = tools.chip(tile_size=25, bits=4, programming=0.01, read=0.01, dac=6, adc=8)
    b = np.random.default_rng(0).normal(size=(2, 25))
    plain = answers(program_bank(blocks, chip, event=3), b)
    for depth in (0, 2):  # what fits a tile goes to one, whatever the depth allowed
        bank = program_blocks(blocks, chip, depth=depth, event=3)
        assert isinstance(bank, InvBank)
        np.testing.assert_array_equal(answers(bank, b), plain)


def test_rows_that_are_not_kept_keep_the_right_hand_side(tools):
    matrices = [tools.grid(4, 4), tools.grid(3, 3), tools.chain(6)]
    kept = np.array([5, 0, 6], np.int32)
    b = np.random.default_rng(0).normal(size=(3, 16))
    chip = tools.chip(tile_size=8)
    full = answers(program_blocks(tools.pack(matrices), chip, depth=1), b)
    x = answers(program_blocks(tools.pack(matrices), chip, depth=1, kept=kept), b)
    for k in range(3):
        np.testing.assert_array_equal(x[k, : kept[k]], full[k, : kept[k]])
        np.testing.assert_array_equal(x[k, kept[k]:], b[k, kept[k]:])


@pytest.mark.parametrize("n", [0, 4])
def test_empty_bank(tools, n):
    blocks = Blocks.from_dense(np.zeros((0, n, n)))
    bank = program_blocks(blocks, tools.chip(tile_size=2, bits=3, read=0.01), depth=1)
    assert bank.shoot(np.zeros((0, n)), 0) == Ledger()
    assert (bank.count, bank.lines, bank.programmed) == (0, 0, Ledger())


def test_figures_of_a_bank(tools):
    matrices = [tools.grid(4, 4), tools.grid(2, 3)]
    bank = program_blocks(tools.pack(matrices), tools.chip(tile_size=8, programming=0.01), depth=1)
    assert (bank.count, bank.lines) == (2, 22)
    assert bank.nbytes > bank.first.nbytes + bank.schur.nbytes + bank.upper.nbytes
    alone = [program_blocks(tools.pack([m]), tools.chip(tile_size=8, programming=0.01), depth=1) for m in matrices]
    assert bank.shift == pytest.approx(0.5 * (alone[0].shift + alone[1].shift))
    assert bank.delta == max(part.delta for part in alone)


def test_chunks_of_a_schur_complement(tools, monkeypatch):
    matrices = [tools.grid(4, 4), tools.random_spd(16, 9.0, 1), tools.chain(9), tools.lognormal(4, 1.0)]
    b = np.random.default_rng(0).normal(size=(4, 16))
    at_once = answers(programmed(tools, matrices, 1, errors={"bits": 4}), b)
    monkeypatch.setattr(blockamc, "_CHUNK_ENTRIES", 1)
    np.testing.assert_array_equal(answers(programmed(tools, matrices, 1, errors={"bits": 4}), b), at_once)

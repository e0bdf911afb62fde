"""Equal blocks share a programmed tile, and what does not fit is programmed in turn."""

import numpy as np
import pytest

from analogpde.cost import Ledger, TileUse
from analogpde.tile.blocks import Blocks
from analogpde.tile.inv import program_bank
from analogpde.tile.programming import scale_blocks
from analogpde.tile.sharing import Budget, find_equal, program_limited

TOLERANCE = 1e-6


def kinds(tools):
    """Blocks of different sizes and patterns, and one pair of equal pattern."""
    return [tools.grid(4, 4), tools.grid(2, 3), tools.grid(4, 4, x=2.0), tools.chain(5), np.eye(3)]


def mixed(tools, which, seed=0):
    """The kinds in the given order, rows of each scaled at random, some negated."""
    rng = np.random.default_rng(seed)
    matrices = []
    for kind in which:
        matrix = kinds(tools)[kind]
        scale = rng.uniform(0.1, 10.0, len(matrix))
        matrices.append(rng.choice((-1.0, 1.0)) * scale[:, None] * matrix * scale)
    return tools.pack(matrices)


def shuffled(blocks):
    """The same blocks, the entries of each row in another order."""
    rng = np.random.default_rng(1)
    order = np.lexsort((rng.random(len(blocks.value)), blocks.row, blocks.owner))
    return Blocks(blocks.sizes, blocks.offsets, blocks.row[order], blocks.col[order], blocks.value[order],
                  blocks.tiles, blocks.size)


def right_hand_sides(bank, seed=0):
    return np.random.default_rng(seed).standard_normal((bank.count, bank.sizes.max()))


def limited(blocks, chip, tiles, **how):
    return program_limited(blocks, chip, Budget(tiles), tolerance=TOLERANCE, last=True, **how)


def test_equal_up_to_the_scale_of_rows_and_the_order_of_entries(tools):
    which = np.array([0, 3, 0, 1, 2, 2, 0, 4, 1, 3])
    equal = find_equal(scale_blocks(shuffled(mixed(tools, which)))[0], TOLERANCE)
    _, first, label = np.unique(which, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(equal.first, np.sort(first))
    np.testing.assert_array_equal(equal.first[equal.label], first[label])
    np.testing.assert_array_equal(equal.members, [3, 2, 2, 2, 1])


def test_the_same_as_comparing_all_with_all_wherever_values_lie(tools):
    """Differences on both sides of the tolerance, at values that fall on every side of a cell's border."""
    rng = np.random.default_rng(5)
    matrices = []
    for base in rng.uniform(0.1, 0.9, 60):
        for change in rng.uniform(-1.5, 1.5, 5) * TOLERANCE:
            matrix = np.eye(3)
            matrix[0, 1] = -base - change
            matrices.append(matrix)
    blocks = tools.pack(matrices)
    equal = find_equal(blocks, TOLERANCE)
    values = np.array([matrix[0, 1] for matrix in matrices])
    first: list[int] = []
    for k, value in enumerate(values):
        near = [c for c in first if abs(values[c] - value) <= TOLERANCE]
        if near:
            assert abs(values[equal.first[equal.label[k]]] - value) <= TOLERANCE
        else:
            first.append(k)
    np.testing.assert_array_equal(equal.first, first)
    assert 60 < len(first) < 300  # the tolerance both joins and parts


@pytest.mark.parametrize(("change", "count"), [(0.9, 1), (1.1, 2)])
def test_the_tolerance_is_a_bound_on_each_entry(tools, change, count):
    other = tools.grid(4, 4) / 4.0
    other[5, 6] += change * TOLERANCE
    assert len(find_equal(tools.pack([tools.grid(4, 4) / 4.0, other]), TOLERANCE).first) == count


def test_a_pattern_of_its_own_is_not_shared(tools):
    other = tools.grid(4, 4) / 4.0
    other[0, 15] = 0.5 * TOLERANCE  # a cell more, however small
    assert len(find_equal(tools.pack([tools.grid(4, 4) / 4.0, other]), TOLERANCE).first) == 2


def test_no_blocks(tools):
    bank = limited(tools.pack([np.eye(2)]).select(np.empty(0, np.int64)), tools.chip(), 3)
    assert bank.shoot(np.zeros((0, 2)), 0) == Ledger()
    assert bank.use == TileUse(3)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("tiles", [1, 3, 100])
def test_a_chip_without_errors_answers_as_one_without_limit(tools, tiles, transposed):
    """More than eight blocks of a kind, so that lanes are shared, full and left empty."""
    which = np.concatenate((np.zeros(19, int), np.random.default_rng(2).integers(0, 5, 40)))
    blocks = mixed(tools, which)
    kept = np.maximum(1, blocks.sizes - 1).astype(np.int32)
    chip = tools.chip(bits=3)
    bank = limited(blocks, chip, tiles, kept=kept)
    free = program_bank(blocks, chip, kept=kept)
    x = right_hand_sides(bank)
    if transposed:
        x[np.arange(x.shape[1]) >= kept[:, None]] = 0.0
    y = x.copy()
    ledger, whole = bank.shoot(x, 0, transposed=transposed), free.shoot(y, 0, transposed=transposed)
    assert (ledger.inv_shots, ledger.dac_conversions, ledger.adc_conversions) == (
        whole.inv_shots, whole.dac_conversions, whole.adc_conversions)
    assert (bank.count, bank.lines) == (free.count, free.lines)
    # Scaled blocks of a kind differ by roundings of FP64 and may round to other bits of float32 factors. Substitution
    # then loses 2^-24 an operation, n of them a row, amplified by κ: n ≤ 16 and κ ≤ 16 for these blocks.
    np.testing.assert_allclose(x, y, rtol=0, atol=16 * 16 * 2.0**-24 * np.abs(y).max())


def test_one_programming_error_a_tile_one_read_noise_a_turn(tools):
    blocks = tools.pack([tools.grid(4, 4)] * 3)
    x = np.tile(np.random.default_rng(0).standard_normal(16), (3, 1))

    def shot(chip, event=0, seed=0):
        bank, out = limited(blocks, chip, 100, seed=seed), x.copy()
        bank.shoot(out, event)
        return out

    static = shot(tools.chip(programming=0.01))
    np.testing.assert_array_equal(static, np.tile(static[0], (3, 1)))  # the same tile three times
    assert not np.array_equal(static, shot(tools.chip(programming=0.01), seed=1))
    noisy = shot(tools.chip(read=0.01))
    assert len(np.unique(noisy, axis=0)) == 3  # each turn is a shot of its own
    np.testing.assert_array_equal(noisy, shot(tools.chip(read=0.01)))
    assert (noisy != shot(tools.chip(read=0.01), event=1)).any(axis=1).all()


def test_what_takes_turns_has_new_errors_in_each_programming(tools):
    blocks = tools.pack([tools.grid(4, 4), tools.grid(4, 4), tools.chain(16)])
    bank = limited(blocks, tools.chip(programming=0.01), 1)
    assert bank.use.turning == 2
    x = right_hand_sides(bank)
    x[1] = x[0]
    shots = []
    for event in (0, 1, 0):
        shots.append(x.copy())
        bank.shoot(shots[-1], event)
    np.testing.assert_array_equal(shots[0], shots[2])
    assert (shots[0] != shots[1]).any(axis=1).all()
    for shot in shots:
        np.testing.assert_array_equal(shot[0], shot[1])  # two turns on one programming


def test_the_most_shared_stay_and_the_rest_is_counted(tools):
    which = [3, 0, 1, 1, 2, 0, 0, 1, 4]
    bank = limited(mixed(tools, which), tools.chip(), 3)
    # five kinds on three tiles: one is for turns, so the kinds 0 and 1 stay and 3, 2 and 4 take turns
    assert bank.use == TileUse(limit=3, patches=9, tiles=5, shared=2, turning=3)
    cells = [np.count_nonzero(kinds(tools)[kind]) for kind in range(5)]  # continuous cells: one an entry
    assert bank.programmed == Ledger(
        cells_written=sum(cells), tiles_programmed=5, write_pulses=sum(cells),
        pulses_in_turn=sum(len(kind) for kind in kinds(tools)))
    sizes = [len(kinds(tools)[kind]) for kind in which]
    for event in range(2):
        assert tools.counts(bank.shoot(right_hand_sides(bank), event)) == Ledger(
            inv_shots=9, dac_conversions=sum(sizes), adc_conversions=sum(sizes),
            cells_written=cells[2] + cells[3] + cells[4], tiles_programmed=3, tiles_multiplexed=3,
            write_pulses=cells[2] + cells[3] + cells[4],
            pulses_in_turn=sum(len(kinds(tools)[kind]) for kind in (2, 3, 4)))


@pytest.mark.parametrize(("tiles", "levels", "expected"), [
    (10, [5, 3, 1], [5, 3, 1]),
    (9, [5, 3, 1], [5, 3, 1]),  # the last level may take the last tile
    (8, [5, 3, 1], [5, 2, 0]),  # the coarsest takes turns with what is left of the level before
    (5, [5, 3, 1], [4, 0, 0]),  # one tile is left for turns
    (1, [5, 3, 1], [0, 0, 0]),
    (1, [1], [1]),
    (4, [5], [3]),
])
def test_tiles_are_given_away_level_by_level(tiles, levels, expected):
    budget = Budget(tiles)
    given = [budget.take(wanted, last=k == len(levels) - 1) for k, wanted in enumerate(levels)]
    assert given == expected
    assert sum(given) + (given != levels) <= tiles


def test_memory_of_shared_factors(tools):
    """800 equal blocks: 100 groups of lanes read the same factors."""
    blocks = tools.pack([tools.grid(4, 4)] * 800)
    shared = limited(blocks, tools.chip(), 100).resident.factors
    assert shared.data.nbytes <= 8 * 16 * (2 * 7 + 1) * 4  # one group, half bandwidth at most 7 as in test_inv.py
    assert len(shared.base) == 100

"""A chip with few tiles: equal blocks share a programmed tile, and what does not fit takes turns on the last one.

Equal means: scaled to a unit diagonal, two blocks have the same pattern and entries that differ by no more than a
tolerance. Rows keep the scale of their own block, a matter of the host. A tile that is shared is programmed once, with
the errors of that one programming; its blocks use it one after the other, and each of these turns is a shot with read
noise of its own, keyed by the global tile id that the block would have on a chip without limit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.compiled import compiled
from analogpde.cost import Ledger, TileUse
from analogpde.tile.blocks import Blocks
from analogpde.tile.factors import Groups
from analogpde.tile.inv import InvBank, program_bank
from analogpde.tile.lanes import LANES
from analogpde.tile.programming import scale_blocks

# Tiles whose signatures fall together with a block's before it is taken for one of its own: this keeps the search
# linear in the entries for blocks that differ by a few tolerances only.
MOST_CANDIDATES = 32
# Equal entries computed in different places of a mesh differ by rounding; a tolerance below that finds nothing.
LEAST_TOLERANCE = 1e-15
IN_TURN = "~turn"  # behind the noise's name: what is programmed in turn draws from a stream of its own


@compiled
def _mix(word):  # type: ignore[no-untyped-def]
    """Return 64 bits all of which depend on all of `word`: the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    word = np.uint64(word) + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@compiled
def _sort_rows(offsets, row, col, order):  # type: ignore[no-untyped-def]
    """Fill `order` with the entries of each block sorted by row and column; those of a row follow each other."""
    for k in range(offsets.size - 1):
        begin = offsets[k]
        for e in range(begin, offsets[k + 1]):
            if e > begin and row[e] != row[e - 1]:
                begin = e
            place = e
            while place > begin and col[order[place - 1]] > col[e]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = e


@compiled
def _agree(offsets, row, col, value, a, b, tolerance):  # type: ignore[no-untyped-def]
    """Tell whether two blocks have the same entries, values within the tolerance."""
    count = offsets[a + 1] - offsets[a]
    if count != offsets[b + 1] - offsets[b]:
        return False
    for t in range(count):
        i, j = offsets[a] + t, offsets[b] + t
        if row[i] != row[j] or col[i] != col[j] or not abs(value[i] - value[j]) <= tolerance:
            return False
    return True


@compiled
def _find_equal(offsets, sizes, row, col, value, tolerance, label, first):  # type: ignore[no-untyped-def]
    """Label blocks with the tile they share; first[c] is the first block of tile c. Return how many tiles there are.

    A block's signature is a hash of its pattern and a fixed random combination s of its values. Blocks that agree
    within the tolerance have combinations that differ by no more than half a step, so that they lie in the same cell
    of s or in neighbouring ones, wherever the borders of the cells are.
    """
    count = sizes.size
    slots = 16
    while slots < 2 * count:
        slots *= 2
    heads = np.full(slots, -1, np.int64)
    following = np.full(count, -1, np.int64)
    hashes, cells = np.empty(count, np.uint64), np.empty(count, np.int64)
    mask = np.uint64(slots - 1)
    total = 0
    for k in range(count):
        pattern = _mix(np.uint64(sizes[k]))
        combination, weights = 0.0, 0.0
        for e in range(offsets[k], offsets[k + 1]):
            word = _mix((np.uint64(row[e]) << np.uint64(32)) | np.uint64(col[e]))
            pattern = _mix(pattern ^ word)
            weight = 0.5 + np.float64(word >> np.uint64(12)) * 2.0**-52
            combination += weight * value[e]
            weights += weight
        cell = np.int64(np.floor(combination / (2.0 * tolerance * weights))) if weights > 0.0 else np.int64(0)
        found, tried = -1, 0
        for probe in (cell, cell - 1, cell + 1):
            c = heads[_mix(pattern ^ _mix(np.uint64(probe))) & mask]
            while c >= 0 and found < 0 and tried < MOST_CANDIDATES:
                if hashes[c] == pattern and cells[c] == probe:
                    tried += 1
                    if sizes[first[c]] == sizes[k] and _agree(offsets, row, col, value, first[c], k, tolerance):
                        found = c
                c = following[c]
        if found < 0:
            slot = _mix(pattern ^ _mix(np.uint64(cell))) & mask
            first[total], hashes[total], cells[total] = k, pattern, cell
            following[total] = heads[slot]
            heads[slot] = total
            found = total
            total += 1
        label[k] = found
    return total


@dataclass(frozen=True)
class Equal:
    """Which blocks are equal.

    Args:
        label: the distinct block that each block is equal to, shape (K,).
        first: the first block of each distinct one, shape (D,).
    """

    label: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def members(self) -> NDArray[np.int64]:
        """How many blocks each distinct one stands for, shape (D,)."""
        return np.bincount(self.label, minlength=len(self.first))


def find_equal(scaled: Blocks, tolerance: float) -> Equal:
    """Find the blocks that are equal within a tolerance, in time linear in their entries.

    Args:
        scaled: blocks of unit diagonal, entries sorted by row.
        tolerance: largest difference of two entries, in units of the diagonal.

    Returns:
        The classes. Each block agrees with the first one of its class; two others may differ by twice the tolerance.
    """
    order = np.empty(len(scaled.value), np.int64)
    _sort_rows(scaled.offsets, scaled.row, scaled.col, order)
    label, first = np.empty(scaled.count, np.int64), np.empty(scaled.count, np.int64)
    total: int = _find_equal(scaled.offsets, scaled.sizes, scaled.row[order], scaled.col[order], scaled.value[order],
                        max(tolerance, LEAST_TOLERANCE), label, first)
    return Equal(label, first[:total].copy())


@compiled
def _take_lanes(data, source, lengths, lanes, starts, out):  # type: ignore[no-untyped-def]
    """Copy groups lane by lane: out[starts[g] + p, l] = data[source[g] + p, lanes[g, l]]."""
    for g in range(source.size):
        for p in range(lengths[g]):
            for lane in range(lanes.shape[1]):
                out[starts[g] + p, lane] = data[source[g] + p, lanes[g, lane]]


def spread(groups: Groups, label: NDArray[np.int64]) -> Groups:
    """Return factors of many blocks made of those of the distinct ones.

    Members of one class lie side by side, so that nearly every group of lanes is full of a single class, and groups of
    the same classes read the same factors.

    Args:
        groups: of the distinct blocks.
        label: the distinct block of each block, shape (K,).
    """
    count = len(label)
    origin, lane = np.zeros(len(groups.sizes), np.int64), np.zeros(len(groups.sizes), np.int64)
    group, at = np.nonzero(groups.members >= 0)
    origin[groups.members[group, at]], lane[groups.members[group, at]] = group, at
    # classes that were grouped have factors of one width: only these may be grouped again
    order = np.lexsort((label, origin[label]))
    begin = np.zeros(len(groups.base) + 1, np.int64)
    np.cumsum(np.bincount(origin[label], minlength=len(groups.base)), out=begin[1:])
    begin_group = np.zeros(len(groups.base) + 1, np.int64)
    np.cumsum(-(-np.diff(begin) // LANES), out=begin_group[1:])
    sorted_origin = origin[label[order]]
    rank = np.arange(count) - begin[sorted_origin]
    place = begin_group[sorted_origin] * LANES + rank
    members = np.full((begin_group[-1], LANES), -1, np.int64)
    members.reshape(-1)[place] = order
    old = np.repeat(np.arange(len(groups.base)), np.diff(begin_group))
    lanes = np.where(members >= 0, lane[label[members]], 0) if count else members
    distinct, which = np.unique(np.column_stack((old, lanes)), axis=0, return_inverse=True)
    old_of = distinct[:, 0]
    lengths = (2 * groups.width[old_of] + 1) * groups.size[old_of]
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    data = np.empty((int(starts[-1]), LANES), groups.data.dtype)
    _take_lanes(groups.data, groups.base[old_of], lengths, np.ascontiguousarray(distinct[:, 1:]), starts[:-1], data)
    return Groups(data, members, starts[which.reshape(-1)], groups.width[old], groups.size[old], groups.rows[label],
                  groups.cols[label], groups.sizes[label])


def share(
    bank: InvBank, label: NDArray[np.int64], *, scale: NDArray[np.float64], sign: NDArray[np.float64],
    kept: NDArray[np.int32], tiles: NDArray[np.int64],
) -> InvBank:
    """Return a bank in which many blocks use the programmed tiles of `bank`.

    Args:
        bank: the distinct tiles.
        label: which of them each block uses, shape (K,).
        scale, sign, kept, tiles: of the blocks, as `InvBank` has them; `tiles` keys the read noise of each
            block's turn.
    """
    lengths = np.diff(bank.offsets)[label]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    entries = np.repeat(bank.offsets[label] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return replace(
        bank, factors=spread(bank.factors, label), sizes=bank.sizes[label], kept=kept, offsets=offsets,
        row=bank.row[entries], col=bank.col[entries], deviation=bank.deviation[entries], drawn=bank.drawn[label],
        scale=scale, sign=sign, tiles=tiles, slowness=bank.slowness[label],
        shared=bank.shared[label] if bank.shared.size else bank.shared, settling=bank.settling[label],
        circuit=None if bank.circuit is None else bank.circuit.select(label))


@dataclass
class Budget:
    """The tiles of one rank's chip, given away level by level, the finest first.

    A level that may not be the last leaves one tile: on it everything that finds no place takes turns.

    Args:
        tiles: of the chip.
    """

    tiles: int

    def __post_init__(self) -> None:
        self.free = self.tiles
        self.turning = False  # whether blocks take turns on the last tile

    def take(self, wanted: int, *, last: bool = False) -> int:
        """Return how many of `wanted` tiles can be programmed for good.

        Args:
            wanted: distinct blocks of a level.
            last: whether no other level follows.
        """
        spare = self.free - 1 if self.turning or not last or wanted > self.free else self.free
        given = min(wanted, spare)
        self.free -= given
        self.turning = self.turning or given < wanted
        return given


@dataclass
class Turns:
    """Blocks that are programmed at each shot, because the chip has no tile left to keep them on.

    Args:
        patches: which blocks of the bank these are, shape (k,).
        distinct: what is programmed, one block for each class.
        label: class of each block, shape (k,).
        scale, sign, kept, tiles: of the blocks.
    """

    patches: NDArray[np.int64]
    distinct: Blocks
    label: NDArray[np.int64]
    scale: NDArray[np.float64]
    sign: NDArray[np.float64]
    kept: NDArray[np.int32]
    tiles: NDArray[np.int64]


@dataclass
class LimitedBank:
    """Blocks on a chip of few tiles: a part resides on tiles of its own or shared ones, the rest takes turns.

    Args:
        resident: the blocks that stay on tiles. residents: which blocks of the bank they are; None: all.
        turns: the others; None: there are none.
        chip, slices, shift_factor, seed, name: how to program them again.
        sizes, kept: of all blocks, as in `InvBank`.
        use: how many tiles were programmed for how many blocks.
        programmed: what the first programming cost. Every block is programmed and tested at set-up, also those that
            take turns later.
        shift, delta, smallest: as in `InvBank`, over all blocks.
    """

    resident: InvBank
    residents: NDArray[np.int64] | None
    turns: Turns | None
    chip: Chip
    slices: int
    shift_factor: float
    seed: int
    name: str
    sizes: NDArray[np.int32]
    kept: NDArray[np.int32]
    use: TileUse
    programmed: Ledger
    shift: float
    delta: float
    smallest: float

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self.sizes)

    @property
    def lines(self) -> int:
        """Lines in use over all blocks."""
        return int(self.sizes.sum())

    @property
    def slowest(self) -> float:
        """Time that the slowest resident tile takes to settle, s."""
        return self.resident.slowest

    @property
    def wire_error(self) -> float:
        """Largest error to be expected of the wires' approximation, relative, of resident tiles."""
        return self.resident.wire_error

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.resident.nbytes + (self.turns.distinct.value.nbytes + self.turns.scale.nbytes if self.turns else 0)

    def shoot(self, x: NDArray[np.float64], event: int, *, transposed: bool = False) -> Ledger:
        """Let every block have one shot, in place; see `InvBank.shoot`.

        What takes turns is programmed first, with programming errors of its own for each event: it is another circuit
        each time, as a rewritten tile is.

        Raises:
            ProgrammingFailed: a tile stays unstable in this programming.
        """
        if self.residents is None:
            return self.resident.shoot(x, event, transposed=transposed)
        part = x[self.residents]
        ledger = self.resident.shoot(part, event, transposed=transposed)
        x[self.residents] = part
        turns = self.turns
        if turns is not None:
            bank = self.program_turns(event)
            part = x[turns.patches]
            ledger.add(bank.shoot(part, event, transposed=transposed))
            x[turns.patches] = part
            ledger.add(bank.programmed)
            ledger.add(Ledger(tiles_multiplexed=turns.distinct.count))
        return ledger

    def program_turns(self, event: int) -> InvBank:
        """Return the blocks that take turns as they are programmed at shot `event`."""
        turns = self.turns
        assert turns is not None
        bank = program_bank(turns.distinct, self.chip, slices=self.slices, shift=self.shift_factor, seed=self.seed,
                            name=self.name + IN_TURN, event=event)
        return share(bank, turns.label, scale=turns.scale, sign=turns.sign, kept=turns.kept, tiles=turns.tiles)


def program_limited(
    blocks: Blocks, chip: Chip, budget: Budget, *, tolerance: float, last: bool = False, slices: int = 1,
    shift: float = 0.5, seed: int = 0, name: str = "", event: int = 0, kept: NDArray[np.int32] | None = None,
) -> LimitedBank:
    """Program blocks on a chip of few tiles: equal ones on one tile, and what does not fit in turns.

    The classes with the most blocks stay; the others are programmed and tested now, to fail early, and again at every
    shot.

    Args:
        blocks, chip, slices, shift, seed, name, event, kept: see `program_bank`.
        budget: of the chip; this bank takes its part of it.
        tolerance: see `find_equal`.
        last: whether no other bank will ask for tiles.

    Raises:
        ProgrammingFailed: see `program_bank`.
    """
    scaled, scale, sign = scale_blocks(blocks)
    equal = find_equal(scaled, tolerance)
    kept = blocks.sizes if kept is None else kept
    total = len(equal.first)
    place = budget.take(total, last=last)
    stays = np.zeros(total, bool)
    stays[np.argsort(-equal.members, kind="stable")[:place]] = True

    def part(chosen: NDArray[np.bool_], patches: NDArray[np.int64]) -> Turns:
        number = np.cumsum(chosen) - 1
        return Turns(patches, blocks.select(equal.first[chosen]), number[equal.label[patches]], scale[patches],
                     sign[patches], kept[patches], blocks.tiles[patches])

    def first(turns: Turns) -> InvBank:
        bank = program_bank(turns.distinct, chip, slices=slices, shift=shift, seed=seed, name=name, event=event)
        return share(bank, turns.label, scale=turns.scale, sign=turns.sign, kept=turns.kept, tiles=turns.tiles)

    staying = np.flatnonzero(stays[equal.label])
    resident = first(part(stays, staying))
    shifts, delta, smallest, ledger = resident.shift * place, resident.delta, resident.smallest, resident.programmed
    turns = None
    if place < total:
        turns = part(~stays, np.flatnonzero(~stays[equal.label]))
        trial = first(turns)
        shifts += trial.shift * (total - place)
        delta, smallest = max(delta, trial.delta), min(smallest, trial.smallest)
        ledger = ledger + trial.programmed
    use = TileUse(budget.tiles, blocks.count, total, int(np.count_nonzero(equal.members > 1)), total - place)
    return LimitedBank(
        resident, staying if turns is not None else None, turns, chip, slices, shift, seed, name, blocks.sizes, kept,
        use, ledger, shifts / max(1, total), delta, smallest)

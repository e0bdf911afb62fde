"""BlockAMC: blocks of two or four times the tile, solved by block elimination on tiles (Pan et al., arXiv 2401.10042).

A block [A1 A2; A3 A4] is halved. Programming: A2 and A3 go to open-loop arrays, A1 and the Schur complement
S = A4 − A3 A1⁻¹ A2, formed by the host, to INV tiles, or are halved again. A solve for [f; g] is three INV shots and
two block products in sequence: t = A1⁻¹ f, z = S⁻¹ (g − A3 t), y = A1⁻¹ (f − A2 z).

What the host knows of its own roundings goes into S: S is the Schur complement of the matrix that programming aims at.
The rounding errors of a row of A2 or A3 are added to the diagonal of A1 or A4, as they would be on one tile. For a
symmetric positive definite block the matrix aimed at is then at least as large, and its Schur complement definite.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.compiled import compiled
from analogpde.cost import Ledger
from analogpde.errors import ProgrammingFailed
from analogpde.tile.blocks import Blocks
from analogpde.tile.elimination import band_order
from analogpde.tile.factors import factorise
from analogpde.tile.inv import InvBank, program_bank
from analogpde.tile.mvm_bank import Entries, MvmBank, lines, program_mvm, starts_of
from analogpde.tile.programming import scale_blocks

DEEPEST = 2
# A block whose answer to a probe is further off than this is programmed again with twice the shift: Krylov methods
# make use of a correction with an error near 1, which plain refinement would not, but not of one far above.
LARGEST_ERROR = 2.0
ATTEMPTS = 3
_PROBE = 2**29  # number of the first probe shot; those of the solver begin at 0
_CHUNK_ENTRIES = 1 << 22  # entries of A1⁻¹ A2 worked on at a time


@compiled
def _divide(x, which, order, heads, sizes, scale, f, g):  # type: ignore[no-untyped-def]
    """Scale the right-hand sides of some blocks and part them: f the first `heads` places, g the others."""
    for s in range(which.size):
        k = which[s]
        for t in range(sizes[s]):
            i = order[s, t]
            if t < heads[s]:
                f[s, t] = x[k, i] * scale[s, i]
            else:
                g[s, t - heads[s]] = x[k, i] * scale[s, i]


@compiled
def _join(f, g, which, order, heads, sizes, scale, sign, read, x):  # type: ignore[no-untyped-def]
    """Put the parts of the solutions together, and undo the scaling; rows from `read` on are left alone."""
    for s in range(which.size):
        k = which[s]
        for t in range(sizes[s]):
            i = order[s, t]
            if i < read[k]:
                value = f[s, t] if t < heads[s] else g[s, t - heads[s]]
                x[k, i] = value * scale[s, i] * sign[s]


@compiled
def _fill(offsets, row, col, value, starts, columns, heights, solved, base, out):  # type: ignore[no-untyped-def]
    """out −= A3 W, W = A1⁻¹ A2 by columns from solved[starts[k]]; `row` counts rows of A3 in use, out is row major."""
    for k in range(columns.size):
        for c in range(columns[k]):
            column = starts[k] + c * heights[k]
            for e in range(offsets[k], offsets[k + 1]):
                out[base[k] + row[e] * columns[k] + c] -= value[e] * solved[column + col[e]]


@dataclass
class BlockAmcBank:
    """K blocks of up to 2 or 4 tiles, worked as one batch; used like an `InvBank`.

    Args:
        sizes: rows of each block, shape (K,). kept: rows that are returned, the first ones, shape (K,).
        fitting, whole: the blocks that fit one tile, shape (F,), and their tiles.
        split: the other blocks, shape (S,).
        order: row at each place of the elimination, shape (S, n). heads: places of the first part, shape (S,).
        scale, sign: diagonal scaling of both sides, shape (S, n), and sign of each block.
        first, schur: A1 and the Schur complement. upper, lower: A2 and A3.
        programmed: what programming cost.
    """

    sizes: NDArray[np.int32]
    kept: NDArray[np.int32]
    fitting: NDArray[np.int64]
    whole: InvBank
    split: NDArray[np.int64]
    order: NDArray[np.int16]
    heads: NDArray[np.int64]
    scale: NDArray[np.float64]
    sign: NDArray[np.float64]
    first: Bank
    schur: Bank
    upper: MvmBank
    lower: MvmBank
    programmed: Ledger

    @property
    def count(self) -> int:
        """Number of blocks K."""
        return len(self.sizes)

    @property
    def lines(self) -> int:
        """Rows of all blocks."""
        return int(self.sizes.sum())

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        parts = sum(part.nbytes for part in (self.whole, self.first, self.schur, self.upper, self.lower))
        return parts + self.order.nbytes + self.scale.nbytes

    @property
    def shift(self) -> float:
        """Mean stability shift of the INV tiles of a block, averaged over blocks."""
        halves = 0.5 * (self.first.shift + self.schur.shift)
        return (self.whole.shift * len(self.fitting) + halves * len(self.split)) / max(1, self.count)

    @property
    def delta(self) -> float:
        """Largest δ of the INV tiles."""
        return max(self.whole.delta, self.first.delta, self.schur.delta)

    @property
    def smallest(self) -> float:
        """Smallest singular value measured on an INV tile; infinite without tiles."""
        return min(self.whole.smallest, self.first.smallest, self.schur.smallest)

    @property
    def slowest(self) -> float:
        """Time that the slowest INV tile takes to settle, s."""
        return max(self.whole.slowest, self.first.slowest, self.schur.slowest)

    @property
    def wire_error(self) -> float:
        """Largest error to be expected of the wires' approximation, relative."""
        return max(part.wire_error for part in (self.whole, self.first, self.schur, self.upper, self.lower))

    @property
    def dense_solves(self) -> int:
        """Shots whose noise had to be solved densely."""
        return self.whole.dense_solves + self.first.dense_solves + self.schur.dense_solves

    def shoot(self, x: NDArray[np.float64], event: int, *, transposed: bool = False) -> Ledger:
        """Solve every block once, in place. Arguments and result as of `InvBank.shoot`."""
        ledger = Ledger()
        if len(self.fitting):
            part = np.ascontiguousarray(x[self.fitting, : self.whole.scale.shape[1]])
            ledger.add(self.whole.shoot(part, event, transposed=transposed))
            x[self.fitting, : part.shape[1]] = part
        sizes = self.sizes[self.split]
        f = np.zeros((len(self.split), int(self.heads.max(initial=0))))
        g = np.zeros((len(self.split), int((sizes - self.heads).max(initial=0))))
        _divide(x, self.split, self.order, self.heads, sizes, self.scale, f, g)
        into_second, into_first = (self.upper, self.lower) if transposed else (self.lower, self.upper)
        t = f.copy()
        ledger.add(self.first.shoot(t, 2 * event, transposed=transposed))
        ledger.add(into_second.subtract(t, g, event, transposed=transposed))
        ledger.add(self.schur.shoot(g, event, transposed=transposed))
        ledger.add(into_first.subtract(g, f, event, transposed=transposed))
        ledger.add(self.first.shoot(f, 2 * event + 1, transposed=transposed))
        _join(f, g, self.split, self.order, self.heads, sizes, self.scale, self.sign,
              self.sizes if transposed else self.kept, x)
        return ledger


Bank = InvBank | BlockAmcBank


def program_blocks(
    blocks: Blocks, chip: Chip, *, depth: int = 0, slices: int = 1, shift: float = 0.5, seed: int = 0, name: str = "",
    event: int = 0, kept: NDArray[np.int32] | None = None,
) -> Bank:
    """Program blocks on tiles, by BlockAMC where they are larger than one.

    Args:
        blocks: at most 2^depth tiles of rows each.
        depth: how often a block may be halved, 0…2.
        chip, slices, shift, seed, name, event, kept: as of `analogpde.tile.inv.program_bank`.

    Raises:
        ProgrammingFailed: a block is too large, or one of its parts no stable circuit.
    """
    widest = int(blocks.sizes.max(initial=0))
    if depth == 0 or widest <= chip.lines:
        narrow = replace(blocks, size=widest) if depth else blocks
        return program_bank(narrow, chip, slices=slices, shift=shift, seed=seed, name=name, event=event, kept=kept)
    spent = Ledger()
    for attempt in range(ATTEMPTS):
        how = {"slices": slices, "shift": shift * 2**attempt, "seed": seed, "event": event * ATTEMPTS + attempt}
        bank = _program(blocks, chip, depth, how, name, kept)
        if attempt:
            bank.programmed.tiles_reprogrammed += bank.programmed.tiles_programmed
        spent.add(bank.programmed)
        bank.programmed = spent
        error = probe_error(bank, blocks)
        if (error <= LARGEST_ERROR).all():
            return bank
    worst = int(np.argmax(error))
    raise ProgrammingFailed(
        f"tile {int(blocks.tiles[worst])}: a block of {int(blocks.sizes[worst])} rows solved by BlockAMC answers a "
        f"probe with an error of {error[worst]:.0%}. Its Schur complement amplifies the errors of the cells: try more "
        "-pc_analog_slices, a larger tile or less programming error.")


def probe_error(bank: Bank, blocks: Blocks) -> NDArray[np.float64]:
    """Return what is wrong with each block's answer to a probe, relative and in the energy norm, shape (K,).

    The probe is the right-hand side of what two shots make of random signs: mostly the slowest mode, which errors
    are amplified in. All lines are read for it.
    """
    count, n = blocks.count, blocks.size
    owner = blocks.owner

    def product(x: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(owner * n + blocks.row, blocks.value * x[owner, blocks.col], count * n)
        return np.asarray(sums.reshape(count, n))

    whole = replace(bank, kept=bank.sizes)
    if isinstance(whole, BlockAmcBank):  # nor do blocks that fit one tile skip the lines that others would not read
        whole = replace(whole, whole=replace(whole.whole, kept=whole.whole.sizes))
    inside = np.arange(n) < blocks.sizes[:, None]
    diagonal = np.ones((count, n))
    here = blocks.row == blocks.col
    diagonal[owner[here], blocks.row[here]] = np.sqrt(np.abs(blocks.value[here]))
    x = inside * np.random.default_rng(0).choice((-1.0, 1.0), n) * diagonal
    for shot in range(3):
        if shot == 2:
            wanted = x.copy()
            x = product(x)
        whole.shoot(x, _PROBE + shot)
        if shot < 2:
            size = np.linalg.norm(x * diagonal, axis=1, keepdims=True)
            x /= np.where(size > 0, size, 1.0)
    x -= wanted
    energy, lost = (np.abs((v * product(v)).sum(axis=1)) for v in (wanted, x))
    return np.asarray(np.sqrt(lost / np.where(energy > 0, energy, 1.0)))


def depth_needed(rows: int, tile: int) -> int:
    """Return how often a block must be halved to fit tiles."""
    return max(0, int(np.ceil(np.log2(max(1, rows) / tile))))


def _program(
    blocks: Blocks, chip: Chip, depth: int, how: dict[str, Any], name: str, kept: NDArray[np.int32] | None,
    aimed: list[Blocks] | None = None,
) -> Bank:
    """Program blocks; append to `aimed`, if it is a list, the blocks that programming aims at."""
    tile = chip.lines
    if depth == 0 or blocks.sizes.max(initial=0) <= tile:
        intended = None if aimed is None else np.empty(len(blocks.value))
        bank = program_bank(blocks, chip, name=name, kept=kept, intended=intended, **how)
        if aimed is not None and intended is not None:
            aimed.append(replace(blocks, value=intended))
        return bank
    if blocks.sizes.max() > tile << depth:
        raise ProgrammingFailed(f"a block of {blocks.sizes.max()} rows exceeds {1 << depth} tiles of {tile}, what "
                                f"BlockAMC of depth {depth} solves.")
    fits = blocks.sizes <= tile
    fitting, split = np.flatnonzero(fits), np.flatnonzero(~fits)
    inner: list[Blocks] | None = None if aimed is None else []
    alone = blocks.select(fitting)
    alone = replace(alone, size=int(alone.sizes.max(initial=0)))
    whole = _program(alone, chip, 0, how, name, None if kept is None else kept[fitting], inner)

    parts = blocks.select(split)
    scaled, scale, sign = scale_blocks(parts)
    order, width = np.zeros(scale.shape, np.int16), np.zeros(len(split), np.int64)
    band_order(scaled.offsets, scaled.row, scaled.col, scaled.sizes, order, width)
    heads = (scaled.sizes.astype(np.int64) + 1) // 2
    tails = scaled.sizes - heads
    a1, a2, a3, a4 = _quarters(scaled, order, heads)
    tiles = scaled.tiles
    multiplying = {key: how[key] for key in ("slices", "seed", "event")}
    upper, aimed2 = program_mvm(a2, tiles, chip, name=f"{name}/2", **multiplying)
    lower, aimed3 = program_mvm(a3, tiles, chip, name=f"{name}/3", **multiplying)
    a1, a4 = _stiffened(a1, a2, aimed2), _stiffened(a4, a3, aimed3)
    aimed1: list[Blocks] = []
    first = _program(a1.blocks(heads, tiles), chip, depth - 1, how, f"{name}/1", None, aimed1)
    s = _schur_complement(aimed1[0], replace(a2, value=aimed2), replace(a3, value=aimed3), a4)
    held = s.blocks(tails, tiles)
    aimed4: list[Blocks] | None = None if aimed is None else []
    try:
        schur = _program(held, chip, depth - 1, how, f"{name}/4", None, aimed4)
    except ProgrammingFailed as error:
        raise ProgrammingFailed(f"the Schur complement of a block that BlockAMC halves: {error}") from None

    ledger = Ledger()
    for part in (whole, first, schur, upper, lower):
        ledger.add(part.programmed)
    if aimed is not None and inner is not None and aimed4 is not None:
        quarters = (Entries.of(aimed1[0]), replace(a2, value=aimed2), replace(a3, value=aimed3), a4,
                    Entries.of(replace(held, value=aimed4[0].value - held.value)))
        corners = ((0, 0), (0, 1), (1, 0), (1, 1), (1, 1))
        mine = Entries.joined([e.moved(heads * low, heads * left) for e, (low, left) in
                               zip(quarters, corners, strict=True)])
        owner = mine.owner
        row, col = order[owner, mine.row].astype(np.int64), order[owner, mine.col].astype(np.int64)
        value = mine.value * sign[owner] / (scale[owner, row] * scale[owner, col])
        others = Entries.of(inner[0])
        joined = Entries.joined([replace(others, owner=fitting[others.owner]),
                                 Entries(split[owner], row, col, value)])
        aimed.append(replace(joined.blocks(blocks.sizes, blocks.tiles), size=blocks.size))
    assert isinstance(whole, InvBank)
    return BlockAmcBank(blocks.sizes, blocks.sizes if kept is None else kept, fitting, whole, split, order, heads,
                        scale, sign, first, schur, upper, lower, ledger)


def _quarters(scaled: Blocks, order: NDArray[np.int16], heads: NDArray[np.int64]) -> list[Entries]:
    """Return A1, A2, A3, A4 of each block, halved at `heads` places of the order."""
    place = np.zeros(order.shape, np.int64)
    block, at = np.nonzero(np.arange(order.shape[1]) < scaled.sizes[:, None])
    place[block, order[block, at]] = at
    owner = scaled.owner
    row, col = place[owner, scaled.row], place[owner, scaled.col]
    cut = heads[owner]
    low, left = row >= cut, col >= cut
    quarters = []
    for below in (False, True):
        for beyond in (False, True):
            here = (low == below) & (left == beyond) & ((scaled.value != 0) | (below == beyond))
            quarters.append(Entries(owner[here], row[here] - below * cut[here], col[here] - beyond * cut[here],
                                    scaled.value[here]).sorted())
    return quarters


def _stiffened(diagonal: Entries, coupling: Entries, aimed: NDArray[np.float64]) -> Entries:
    """Add the rounding errors of each row of the coupling to the diagonal."""
    error = np.abs(aimed - coupling.value)
    wrong = error > 0
    row = coupling.row[wrong]
    return Entries.joined([diagonal, Entries(coupling.owner[wrong], row, row, error[wrong])])


def _schur_complement(a1: Blocks, a2: Entries, a3: Entries, a4: Entries) -> Entries:
    """Return A4 − A3 A1⁻¹ A2 of each block, in FP64.

    Raises:
        ProgrammingFailed: A1 is singular.
    """
    count = a1.count
    col_owner, cols, col_index = lines(a2.owner, a2.col)
    row_owner, rows, row_index = lines(a3.owner, a3.row)
    col_starts, row_starts = starts_of(col_owner, count), starts_of(row_owner, count)
    columns, wide = np.diff(col_starts), np.diff(row_starts)
    heights = a1.sizes.astype(np.int64)
    entries2, entries3 = starts_of(a2.owner, count), starts_of(a3.owner, count)
    fills = [a4]
    for begin, end in _chunks(columns * (heights + wide)):
        which = np.arange(begin, end)
        factors = factorise(a1.select(which), np.float64)
        part2 = slice(entries2[begin], entries2[end])
        owner = a2.owner[part2]
        starts = np.concatenate(([0], np.cumsum(columns[which] * heights[which])))
        solved = np.zeros(starts[-1])
        column = col_index[part2] - col_starts[owner]
        solved[starts[owner - begin] + column * heights[owner] + a2.row[part2]] = a2.value[part2]
        if factors.regular.all():
            factors.groups.solve_many(starts[:-1], columns[which], solved)
        if not factors.regular.all() or not np.isfinite(solved).all():
            singular = which[~factors.regular] if not factors.regular.all() else which
            raise ProgrammingFailed(f"tile {int(a1.tiles[singular[0]])}: the first half of a block that BlockAMC "
                                    "halves is singular.")
        base = np.concatenate(([0], np.cumsum(columns[which] * wide[which])))
        out = np.zeros(base[-1])
        _fill(entries3[begin: end + 1], row_index - row_starts[a3.owner], a3.col, a3.value, starts[:-1],
              columns[which], heights[which], solved, base[:-1], out)
        owner = np.repeat(which, columns[which] * wide[which])
        at = np.arange(len(out)) - base[owner - begin]
        fills.append(Entries(owner, rows[row_starts[owner] + at // columns[owner]],
                             cols[col_starts[owner] + at % columns[owner]], out))
    s = Entries.joined(fills)
    return s.select((s.value != 0) | (s.row == s.col))


def _chunks(room: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of blocks that need about `_CHUNK_ENTRIES` of room together, at least one block each."""
    ends = np.cumsum(room)
    begin = 0
    while begin < len(room):
        limit = (ends[begin - 1] if begin else 0) + _CHUNK_ENTRIES
        end = max(begin + 1, int(np.searchsorted(ends, limit, side="right")))
        yield begin, end
        begin = end

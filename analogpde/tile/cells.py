"""What the cells of a tile really conduct: errors that depend on the level, leaks, bias columns, faults and age.

Everything is in units of what a fully-on cell of the top slice contributes to an entry, the largest difference that a
pair holds. Sums over the slices of an entry are made here; an entry's errors are independent of all others'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from analogpde.chip import Cell, Chip
from analogpde.tile.blocks import Blocks
from analogpde.tile.noise import Purpose, normal, stream
from analogpde.tile.writing import STUCK as IMMOVABLE
from analogpde.tile.writing import Written, write

# Behind the noise's name: streams of their own for what is drawn beside the programming error.
STUCK, BROKEN, AGED, BIAS = "~stuck", "~broken", "~aged", "~bias"
RELAXED = 2.0


def digits_of(level: NDArray[np.int64], base: int, slices: int) -> NDArray[np.int64]:
    """Return the digits of levels, shape (E, slices), the top one first; what is too large for a digit stays below."""
    digits = np.empty((len(level), slices), np.int64)
    rest = level.copy()
    for s in range(slices):
        place = base ** (slices - 1 - s)
        digits[:, s] = np.minimum(rest // place, base - 1)
        rest -= digits[:, s] * place
    return digits


@dataclass(frozen=True)
class Held:
    """What tiles hold, in the units of the scaled blocks.

    Args:
        intended: what programming aimed at, shape (E,). value: what is there at the time of use.
        read: standard deviation from shot to shot. cells: cells that were written.
        common: conductance at the row nodes that cancels, leaks excepted, shape (K, n).
        written: what writing them took.
        shared: standard deviation from shot to shot of each block's bias cells, which all entries of a row share, shape
            (K,); zero for pairs.
    """

    intended: NDArray[np.float64]
    value: NDArray[np.float64]
    read: NDArray[np.float64]
    cells: int
    common: NDArray[np.float64]
    written: Written
    shared: NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Variances of entries and the cells that hold them.

    Args:
        programming: variance of what is programmed, shape (E,). read: of what changes from shot to shot, shape (E,).
        cells: cells that were written.
    """

    programming: NDArray[np.float64]
    read: NDArray[np.float64]
    cells: int


def spread_of(
    cell: Cell, level: NDArray[np.float64], on: NDArray[np.bool_], weight: NDArray[np.float64],
    helped: NDArray[np.bool_] | None = None,
) -> Spread:
    """Return the variances that the cells of entries add up to.

    Args:
        cell: the cell.
        level: place of each entry's cells in the window, 0…1, shape (E, slices).
        on: which cells hold something, shape (E, slices).
        weight: of the slices, the top one 1, shape (slices,).
        helped: pairs in which the other cell is on too, to make up for one that is stuck, shape (E, slices).
    """
    square = (weight / cell.window) ** 2
    shot = (cell.read_noise or 0.0) ** 2
    programmed = np.where(on, cell.programming_deviation(level) ** 2, 0.0)
    read = np.where(on, shot, 0.0)
    count = int(np.count_nonzero(on))
    if cell.sign_mapping == "pair":
        lowest = float(cell.programming_deviation(np.zeros(1))[0]) ** 2
        leak, flicker = (cell.off_error or 0.0) ** 2, (cell.off_read_noise or 0.0) ** 2
        if cell.conductance_min is not None:  # the other cell is on, at the lowest level
            programmed += np.where(on, lowest, 0.0)
            read += np.where(on, shot, 0.0)
            count *= 2
        else:
            programmed += np.where(on, leak, 0.0)
            read += np.where(on, flicker, 0.0)
        programmed += np.where(on, 0.0, 2.0 * leak)
        read += np.where(on, 0.0, 2.0 * flicker)
        if helped is not None:
            programmed += np.where(helped, float(cell.programming_deviation(np.ones(1))[0]) ** 2, 0.0)
            read += np.where(helped, shot, 0.0)
            count += int(np.count_nonzero(helped))
    return Spread(programmed @ square, read @ square, count)


def static_deviation(chip: Chip) -> float:
    """Return how far an entry of one cell is off at the time of use, as the host expects it: what shifts are sized by.

    Relaxation, which takes as much from small conductances as from large ones, counts double: with tiles a month old
    that is 22 iterations in place of 499 (Poisson, 3600 unknowns, `rram128`), a year old 32 in place of a refusal.
    """
    cell = chip.cell
    if cell.plain and not chip.drift.any:
        return cell.programming_error or 0.0
    square = cell.typical_error**2
    if cell.sign_mapping == "pair" and cell.conductance_min is not None:
        square += float(cell.programming_deviation(np.zeros(1))[0]) ** 2
    drift = chip.drift
    square += drift.decayed_deviation**2 + (RELAXED * drift.relaxed_deviation) ** 2
    found = float(np.sqrt(square)) / cell.window
    return found or np.sqrt(2.0) * (cell.off_error or 0.0) / cell.window


def cells_per_row(chip: Chip, blocks: Blocks, deviation: float) -> NDArray[np.float64]:
    """Return how many cells a row of each block has, shape (K,): all that make noise, in cells of `deviation`."""
    rows = np.maximum(1, blocks.sizes)
    if not chip.cell.crowded or chip.cell.sign_mapping == "bias":
        return np.diff(blocks.offsets) / rows
    used = np.bincount(blocks.owner, blocks.value != 0, blocks.count) / rows
    leak = ((chip.cell.off_error or 0.0) / chip.cell.window) ** 2
    return np.asarray(used + blocks.sizes * 2.0 * leak / deviation**2 if deviation else used)


def _of_tiles(
    offsets: NDArray[np.int64], tiles: NDArray[np.int64], spare: NDArray[np.int64], *, seed: int, word: int,
) -> NDArray[np.float64]:
    """Draw what belongs to physical tiles: number `spare` in each place, shape (K,)."""
    draws = np.empty(int(offsets[-1]))
    for number in np.unique(spare):
        mine = np.repeat(spare == number, np.diff(offsets))
        draws[mine] = normal(offsets, seed=seed, word=word, tiles=tiles, event=int(number))[mine]
    return draws


def stuck(
    chip: Chip, digits: NDArray[np.int64], base: int, blocks: Blocks, *, seed: int, name: str,
    spare: NDArray[np.int64], works: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the digits that cells hold of which some are stuck, and where the other cell of a pair helps out.

    A pair's cells are programmed against each other until the difference is right: where the cell in use is stuck at
    the largest conductance, the other takes away what is too much. Stuck at zero it holds nothing, and the lower
    slices take what they can. An unused cell that is stuck is switched off by its transistor; where there is none
    (leaks), it takes all of its conductance away.

    Args:
        chip: the chip. digits: wanted, shape (E, slices). base: of the digits. blocks: whose entries they are.
        seed, name, spare: which cells these are; the same for the same tile, however often it is programmed.
        works: entries that are placed where cells work, shape (E,).

    Returns:
        The digits, shape (E, slices), negative where the unused cell wins, the pairs that are helped, and the cells
        in use that do not move.
    """
    low, high = chip.faults.stuck_low or 0.0, chip.faults.stuck_high or 0.0
    entries, slices = digits.shape
    draws = _of_tiles(2 * slices * blocks.offsets, blocks.tiles, spare, seed=seed,
                      word=stream(Purpose.PROGRAMMING, name + STUCK)).reshape(entries, slices, 2)
    at_zero, at_top = draws < ndtri(low), draws > -ndtri(high)
    got = np.empty_like(digits)
    helped, fixed = np.zeros(digits.shape, bool), np.zeros(digits.shape, bool)
    places = base ** np.arange(slices - 1, -1, -1, dtype=np.int64)
    rest = digits @ places
    pair = chip.cell.sign_mapping == "pair"
    top = base - 1
    for s in range(slices):
        want = np.clip(rest // places[s], 0, top)
        used_low, used_high = at_zero[:, s, 0] & ~works, at_top[:, s, 0] & ~works
        other_low, other_high = at_zero[:, s, 1] & ~works, at_top[:, s, 1] & ~works
        if not pair:
            digit = np.select([used_low, used_high], [0, top], want)
        elif chip.cell.off_conductance is None:
            alone = used_high & (other_low | other_high) & (want > 0)
            digit = np.select([used_low, alone & (2 * want > top), alone], [0, top, 0], want)
            helped[:, s] = used_high & ~other_low & ~other_high & (want > 0)
        else:
            digit = np.select([used_low & other_high, used_low | other_high, used_high & other_low], [-top, 0, top],
                              want)
            helped[:, s] = (used_high & ~other_low) | (other_high & ~used_low)
        got[:, s] = digit
        fixed[:, s] = (used_low | used_high) & (want > 0)
        rest -= digit * places[s]
        rest = np.maximum(rest, 0)
    return got, helped, fixed


def place_errors(blocks: Blocks, lost: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what entries that are known to be off ask of the diagonals, by block and row, shape (K, n).

    Half of each |error| for the entry's row and half for its column: the symmetric part of the errors is then
    outweighed row by row, as that of the rounding errors is (for symmetric positive definite blocks).
    """
    owner, n = blocks.owner, blocks.size
    half = 0.5 * np.abs(lost)
    total = np.bincount(owner * n + blocks.row, half, blocks.count * n)
    total += np.bincount(owner * n + blocks.col, half, blocks.count * n)
    return np.asarray(total.reshape(blocks.count, n))


def dead_rows(
    chip: Chip, blocks: Blocks, *, slices: int, seed: int, name: str, spare: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Tell which rows of the blocks find no line pair that works, shape (K, n): the last ones; of a dead tile all."""
    faults, size = chip.faults, chip.tile_size
    word = stream(Purpose.PROGRAMMING, name + BROKEN)
    draws = _of_tiles(np.arange(blocks.count + 1, dtype=np.int64) * (size + 1), blocks.tiles, spare, seed=seed,
                      word=word).reshape(blocks.count, size + 1)
    working = np.count_nonzero(draws[:, 1:] >= ndtri(faults.dead_pairs(slices)), axis=1)
    working[draws[:, 0] < ndtri(faults.dead_tiles or 0.0)] = 0
    return np.asarray((np.arange(blocks.size) >= working[:, None]) & (np.arange(blocks.size) < blocks.sizes[:, None]))


def aged(
    chip: Chip, level: NDArray[np.float64], on: NDArray[np.bool_], weight: NDArray[np.float64], blocks: Blocks, *,
    seed: int, name: str, event: int,
) -> NDArray[np.float64]:
    """Return by how much the magnitude of each entry has changed once the mean decay is taken out, shape (E,).

    Args:
        chip, level, on, weight: as of `spread_of`.
        blocks, seed, name, event: key of the draws; two for each cell of a pair.
    """
    drift, cell = chip.drift, chip.cell
    entries, slices = level.shape
    draws = normal(4 * slices * blocks.offsets, seed=seed, word=stream(Purpose.PROGRAMMING, name + AGED),
                   tiles=blocks.tiles, event=event).reshape(entries, slices, 4)

    def change(conductance: NDArray[np.float64], first: int) -> NDArray[np.float64]:
        """Return the change of cells, fraction of the largest conductance."""
        exponent = (drift.exponent or 0.0) + (drift.spread or 0.0) * draws[:, :, first]
        relaxed = (drift.relaxation_mean or 0.0) + (drift.relaxation or 0.0) * draws[:, :, first + 1]
        moved = conductance * np.exp(-drift.folds * exponent) + drift.folds * relaxed
        # no conductance falls below zero
        return np.asarray(np.maximum(moved, 0.0) / drift.decay - conductance)

    total = np.where(on, change(1.0 - cell.window * (1.0 - level), 0), 0.0)
    if cell.sign_mapping == "pair" and cell.conductance_min is not None:
        total -= np.where(on, change(np.full(level.shape, 1.0 - cell.window), 2), 0.0)
    elif cell.sign_mapping == "bias":  # the bias column ages alike; of it only the mean is taken
        total -= drift.folds * (drift.relaxation_mean or 0.0) / drift.decay
    return np.asarray(total @ (weight / cell.window))


def bias_errors(
    deviation: NDArray[np.float64], blocks: Blocks, *, seed: int, name: str, event: int,
) -> NDArray[np.float64]:
    """Return the programming error of the bias column, which all entries of a row share, shape (E,).

    Args:
        deviation: of each block's bias cells, shape (K,).
    """
    n = blocks.size
    draws = normal(np.arange(blocks.count + 1, dtype=np.int64) * n, seed=seed,
                   word=stream(Purpose.PROGRAMMING, name + BIAS), tiles=blocks.tiles, event=event)
    owner = blocks.owner
    return np.asarray(deviation[owner] * draws[owner * n + blocks.row])


def _write(
    chip: Chip, blocks: Blocks, place: NDArray[np.float64], on: NDArray[np.bool_], trimmed: NDArray[np.float64],
    helped: NDArray[np.bool_] | None, fixed: NDArray[np.bool_] | None, at_bias: NDArray[np.float64] | None, *,
    seed: int, name: str, event: int,
) -> Written:
    """Write the cells of entries: their slices, the trim cells, the cells that help and a bias column.

    Args:
        place, on, helped, fixed: by entry and slice. trimmed: place of the trim cells, 0: none, shape (E,).
        at_bias: place of the bias cells by tile and slice.
        chip, blocks, seed, name, event: see `hold`.
    """
    target = np.where(on, place, np.nan)
    if fixed is not None:
        target = np.where(fixed, IMMOVABLE, target)
    parts = [target, np.where(trimmed > 0, trimmed, np.nan)[:, None]]
    if chip.cell.sign_mapping == "pair" and chip.cell.conductance_min is not None:
        parts.append(np.where(on, 0.0, np.nan))
    if helped is not None:
        parts.append(np.where(helped, 1.0 - place, np.nan))
    cells = np.concatenate(parts, axis=1)
    used = ~np.isnan(cells)
    line = np.repeat(blocks.owner * blocks.size + blocks.row, used.sum(axis=1))
    ends = np.concatenate(([0], np.cumsum(used.sum(axis=1))))[blocks.offsets].astype(np.int64)
    written = write(chip, cells[used], line, ends, blocks.tiles, seed=seed, name=name, event=event)
    if at_bias is None:
        return written
    slices = at_bias.shape[1]
    owner = np.repeat(np.arange(blocks.count), blocks.sizes)
    line = np.repeat(np.arange(len(owner)), slices)
    ends = slices * np.concatenate(([0], np.cumsum(blocks.sizes))).astype(np.int64)
    return written + write(chip, at_bias[owner].ravel(), line, ends, blocks.tiles, seed=seed, name=name + BIAS,
                           event=event)


def hold(
    chip: Chip, blocks: Blocks, intended: NDArray[np.float64], largest: NDArray[np.float64], *,
    level: NDArray[np.int64] | None = None, trim: NDArray[np.int64] | None = None,
    unit: NDArray[np.float64] | None = None, base: int = 0, slices: int = 1, seed: int = 0, name: str = "",
    event: int = 0, spare: NDArray[np.int64] | None = None, feedback: bool = True,
) -> Held:
    """Return what the cells of tiles hold of rounded blocks, with all errors that the chip knows of.

    Args:
        chip: the chip.
        blocks: scaled blocks, with all their entries where the cells of zeros count.
        intended: what the entries were rounded to, shape (E,); largest: conductance of a fully-on cell, shape (K,).
        level, trim, unit, base, slices: of cells with levels: |intended| = unit (level + trim/base).
        seed, name, event: key of the programming. spare: number of the physical tile in each place; None: the first.
        feedback: whether these are INV tiles: their diagonals are on cells that work, and make up for what others lose.
    """
    cell, owner = chip.cell, blocks.owner
    spare = np.zeros(blocks.count, np.int64) if spare is None else spare
    negative = blocks.value < 0
    bias = cell.sign_mapping == "bias"
    offset = np.zeros(blocks.count)  # by which a bias column shifts, in units of `intended`
    helped = fixed = None
    if level is None or trim is None or unit is None:
        if bias:
            np.maximum.at(offset, owner, np.where(negative, np.abs(intended), 0.0))
        places = np.abs(intended) if not bias else intended + offset[owner]
        weight: NDArray[np.float64] = np.ones(1)
        full = (largest + offset)[owner]
        place = (places / np.where(full > 0, full, 1.0))[:, None]
        on = np.full(place.shape, True) if bias else place > 0
        at_bias = (offset / np.where(largest + offset > 0, largest + offset, 1.0))[:, None]
        largest = largest + offset
        trimmed: NDArray[np.float64] = np.zeros(len(intended))
    else:
        shift = np.zeros(blocks.count, np.int64)
        if bias:
            np.maximum.at(shift, owner, np.where(negative, level, 0))
            offset = shift * unit
        shifted = np.where(negative, -level, level) + shift[owner] if bias else level
        digits = digits_of(shifted, base, slices)
        weight = np.power(float(base), -np.arange(slices, dtype=np.float64))
        if chip.faults.stuck_low or chip.faults.stuck_high:
            powers = base ** np.arange(slices - 1, -1, -1, dtype=np.int64)
            diagonal = (blocks.row == blocks.col) & feedback
            digits, helped, fixed = stuck(chip, digits, base, blocks, seed=seed, name=name, spare=spare,
                                   works=diagonal)
            off = (digits @ powers - np.minimum(shifted, base**slices - 1)) * unit[owner]
            off[diagonal] = 0.0
            more = place_errors(blocks, off)[owner, blocks.row] * diagonal if feedback else np.zeros(len(off))
            fine = level * base + trim + np.ceil(more / unit[owner] * base).astype(np.int64)
            fine = np.minimum(fine, (base**slices - 1 - shift[owner]) * base + base - 1)
            changed = diagonal & (more > 0)
            trim = np.where(changed, fine % base, trim)
            digits[changed] = digits_of((fine // base + shift[owner])[changed], base, slices)
            sign = np.where(negative & (not bias), -1.0, 1.0)
            intended = np.where(changed, unit[owner] * fine / base, intended + sign * off)
        uneven = cell.places
        place = np.abs(digits) / (base - 1) if uneven is None else uneven[digits]
        on = np.full(digits.shape, True) if bias else digits != 0
        at_bias = digits_of(shift, base, slices) / (base - 1)
        trimmed = trim / float(base) if uneven is None else uneven[trim]
    spread = spread_of(cell, place, on, weight, helped)
    programming, read, cells = spread.programming, spread.read, spread.cells
    if trimmed.any():
        smallest = (float(base) ** -slices / cell.window) ** 2 * (trimmed > 0)
        programming = programming + smallest * cell.programming_deviation(trimmed) ** 2
        read = read + smallest * (cell.read_noise or 0.0) ** 2
        cells += int(np.count_nonzero(trimmed))
    written = _write(chip, blocks, place, on, trimmed, helped, fixed, at_bias if bias else None, seed=seed, name=name,
                     event=event)
    value: NDArray[np.float64] = intended.copy()
    shared = np.zeros(blocks.count)
    if programming.any():
        draws = normal(blocks.offsets, seed=seed, word=stream(Purpose.PROGRAMMING, name), tiles=blocks.tiles,
                       event=event)
        value += np.sqrt(programming) * largest[owner] * draws
    if bias:
        deviation = np.sqrt((cell.programming_deviation(at_bias) ** 2) @ (weight / cell.window) ** 2) * largest
        value -= bias_errors(deviation, blocks, seed=seed, name=name, event=event)
        shared = (cell.read_noise or 0.0) * float(np.linalg.norm(weight / cell.window)) * largest
        cells += int(blocks.sizes.sum()) * len(weight)
    if chip.drift.any:
        change = aged(chip, place, on, weight, blocks, seed=seed, name=name, event=event) * largest[owner]
        value += change if bias else np.where(negative, -change, change)
    if feedback and (chip.faults.dead_pairs(slices) or chip.faults.dead_tiles):
        dead = dead_rows(chip, blocks, slices=slices, seed=seed, name=name, spare=spare)
        value[dead[owner, blocks.row]] = 0.0
    lowest = (1.0 - cell.window) / cell.window
    beside = (on @ weight) * (lowest if bias else 2.0 * lowest) * largest[owner]
    if bias:  # what a cell conducts beyond |entry|, and the bias column
        beside += np.where(negative, offset[owner] + 2.0 * intended, offset[owner])
    common = np.bincount(owner * blocks.size + blocks.row, beside, blocks.count * blocks.size)
    common = common.reshape(blocks.count, blocks.size) + offset[:, None]
    return Held(intended, value, np.sqrt(read) * largest[owner], cells, common, written, shared)

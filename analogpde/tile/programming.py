"""Programming: from a block of a matrix to the conductances that a closed-loop tile really holds.

The steps, each a function: symmetric diagonal scaling; choice of the conductance unit; rounding to
levels with each row's |error| added to its diagonal (for a symmetric positive definite block the
rounded block is then at least as large, hence a stable circuit); the stability shift, sized from the
programming error; digits per slice; programming noise on the cells that are on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip, Drift, Faults, Writing
from analogpde.compiled import compiled
from analogpde.errors import InvalidInput, ProgrammingFailed
from analogpde.tile.blocks import Blocks
from analogpde.tile.cells import Held, cells_per_row, hold, static_deviation
from analogpde.tile.noise import Purpose, normal, stream
from analogpde.tile.uneven import choose_largest, round_blocks, sums
from analogpde.tile.writing import Written, write, write_levels

# A shift proportional to the largest conductance needs a larger conductance to hold it; at 1 there is none.
LARGEST_SHIFT = 0.9
# Levels and the trim digit below them are integers that FP64 must hold exactly.
MOST_BITS = 53
FINEST = 16  # bits of continuous cells where digits are asked for: 1e-5 of the window
# Units tried between the smallest that the block allows and 2.5 times that.
_LADDER = 24


@dataclass(frozen=True)
class Conductances:
    """Blocks as the tiles hold them, in units of the scaled matrix (largest diagonal near 1).

    Args:
        blocks: the noisy conductances Ĝ, same pattern as the scaled matrix.
        intended: the conductances that programming aimed at (rounded, shifted, without noise).
        scale: sqrt(1/|a_ii|) of each row, shape (K, size); 0 beyond a block's rows.
        sign: −1 for blocks with a negative diagonal, which are programmed negated, shape (K,).
        unit: conductance of one level of the lowest slice, shape (K,); 0 for continuous cells.
        largest: conductance of a fully-on cell of the top slice, shape (K,).
        read_deviation: standard deviation of each entry from shot to shot, shape (E,).
        shift: stability shift of each block, shape (K,).
        cells: memory cells that are on, a count over all blocks.
        common: conductance at each row node that no entry shows, because it cancels: leaks, the lowest level of a
            pair, a bias column; shape (K, n).
        written: what writing the cells took.
        shared: deviation of the bias cells from shot to shot, shape (K,).
    """

    blocks: Blocks
    intended: NDArray[np.float64]
    scale: NDArray[np.float64]
    sign: NDArray[np.float64]
    unit: NDArray[np.float64]
    largest: NDArray[np.float64]
    read_deviation: NDArray[np.float64]
    shift: NDArray[np.float64]
    cells: int
    common: NDArray[np.float64]
    written: Written
    shared: NDArray[np.float64]


@compiled
def _diagonals(offsets, row, col, value, sizes, diagonal):  # type: ignore[no-untyped-def]
    """Find the diagonal of each block, zero where there is none; return the first entry that is not finite, or −1."""
    bad = -1
    for k in range(sizes.size):
        diagonal[k] = 0.0
        for e in range(offsets[k], offsets[k + 1]):
            if row[e] == col[e]:
                diagonal[k, row[e]] = value[e]
            if bad < 0 and not np.isfinite(value[e]):
                bad = e
    return bad


@compiled
def _scale(offsets, row, col, value, scale, sign, scaled):  # type: ignore[no-untyped-def]
    for k in range(sign.size):
        for e in range(offsets[k], offsets[k + 1]):
            scaled[e] = value[e] * (scale[k, row[e]] * scale[k, col[e]]) * sign[k]


def scale_blocks(blocks: Blocks) -> tuple[Blocks, NDArray[np.float64], NDArray[np.float64]]:
    """Scale every block symmetrically to a unit diagonal.

    Returns:
        The scaled blocks, the scale of each row (K, size) and the sign of each block (K,).

    Raises:
        ProgrammingFailed: a diagonal entry is zero or not finite, or a block's diagonal changes sign.
    """
    diagonal = np.empty((blocks.count, blocks.size))
    wrong = _diagonals(blocks.offsets, blocks.row, blocks.col, blocks.value, blocks.sizes, diagonal)
    if wrong >= 0:
        bad = int(blocks.tiles[np.searchsorted(blocks.offsets, wrong, side="right") - 1])
        raise ProgrammingFailed(f"tile {bad}: the block holds NaN or infinity; check the assembly of the matrix.")
    inside = np.arange(blocks.size) < blocks.sizes[:, None]
    zero = inside & (diagonal == 0)
    if zero.any():
        k, i = np.argwhere(zero)[0]
        raise ProgrammingFailed(
            f"tile {int(blocks.tiles[k])}: row {int(i)} of the block has a zero diagonal, which no INV tile holds as a "
            "stable circuit. Saddle-point systems need a block preconditioner (-pc_type fieldsplit) with tiles inside.")
    sign = np.where(diagonal[:, 0] < 0, -1.0, 1.0) if blocks.size else np.ones(blocks.count)
    mixed = (inside & (diagonal * sign[:, None] < 0)).any(axis=1)
    if mixed.any():
        raise ProgrammingFailed(
            f"tile {int(blocks.tiles[np.argmax(mixed)])}: the diagonal of the block has both signs, so the circuit "
            "would be unstable. INV tiles need eigenvalues in one half plane: the matrix is indefinite, or, if its own "
            "diagonal has one sign, a coarse level is, because rows or columns are scaled very differently. Scale "
            "them to like size, or use -pc_analog_levels 1.")
    scale = np.where(inside, 1.0 / np.sqrt(np.where(inside, np.abs(diagonal), 1.0)), 0.0)
    # the product of the scales first: it commutes exactly, so a symmetric block stays symmetric to the last bit and
    # an entry halfway between two levels is rounded the same way on both sides of the diagonal
    value = np.empty(len(blocks.value))
    _scale(blocks.offsets, blocks.row, blocks.col, blocks.value, scale, sign, value)
    scaled = Blocks(blocks.sizes, blocks.offsets, blocks.row, blocks.col, value, blocks.tiles, blocks.size)
    return scaled, scale, sign


@compiled
def _rounding_cost(value, row, col, size, unit, error, limit):  # type: ignore[no-untyped-def]
    """Fill `error` with each row's sum of |rounding error|; return its mean and maximum.

    Once the mean is above `limit` it is of no interest by how much: then infinity is returned.
    """
    error[:size] = 0.0
    inverse, total, most = 1.0 / unit, 0.0, limit * size
    for e in range(value.size):
        if row[e] != col[e]:
            scaled = value[e] * inverse
            lost = abs(scaled - np.rint(scaled)) * unit
            error[row[e]] += lost
            total += lost
            if total > most:
                return np.inf, np.inf
    largest = 0.0
    for i in range(size):
        largest = max(largest, error[i])
    return total / max(size, 1), largest


@compiled
def _choose_units(offsets, sizes, row, col, value, levels, head, roots, shift_factor, noise, extra):  # type: ignore[no-untyped-def]
    """Choose each block's unit: the one that needs the smallest addition to the diagonal.

    Noise is a fraction of the largest conductance, so a needlessly wide window costs `noise`·unit·levels·sqrt(cells
    per row) beside the rounding, whether or not the diagonal is shifted for it. A unit must let the largest diagonal,
    1 + |errors| + shift + extra, fit below `head` units. `roots`: of the cells per row. Candidates are a geometric
    ladder and the units that hit the block's largest and smallest off-diagonal magnitude exactly (one level = one
    stencil entry makes a uniform stencil exact at 3 bits).
    """
    count = sizes.size
    units = np.empty(count)
    error = np.empty(max(1, sizes.max() if count else 0))
    trial = np.empty(_LADDER + 32)
    for k in range(count):
        begin, end = offsets[k], offsets[k + 1]
        mine = (value[begin:end], row[begin:end], col[begin:end], sizes[k])
        largest, smallest = 0.0, np.inf
        for e in range(begin, end):
            magnitude = abs(value[e])
            if row[e] != col[e] and magnitude > 1e-12:
                largest, smallest = max(largest, magnitude), min(smallest, magnitude)
        root = roots[k]
        lowest = max((1.0 + extra[k]) / head, largest / levels)
        n = 0
        if largest > 0.0:  # these first: a unit that hits every entry makes short work of the others
            for level in range(1, 17):
                for which in range(2 if smallest < largest else 1):
                    magnitude = smallest if which else largest
                    if magnitude / level >= lowest:
                        trial[n] = magnitude / level
                        n += 1
        for c in range(_LADDER):
            trial[n] = lowest * 2.5 ** (c / (_LADDER - 1))
            n += 1
        best, best_unit = np.inf, 0.0
        for c in range(n):
            unit = trial[c]
            shift = shift_factor * unit * levels * root
            spread = noise * unit * levels * root
            if spread >= best:  # rounding only adds to it
                continue
            mean, peak = _rounding_cost(*mine, unit, error, best - spread)
            cost = mean + spread
            if 1.0 + peak + shift + extra[k] <= head * unit and cost < best:
                best, best_unit = cost, unit
        while best_unit == 0.0:  # dense rows of many small entries: widen the window until the diagonal fits
            unit = unit * 1.25
            mean, peak = _rounding_cost(*mine, unit, error, np.inf)
            if 1.0 + peak + shift_factor * unit * levels * root + extra[k] <= head * unit:
                best_unit = unit
        units[k] = best_unit
    return units


def check_slices(bits: int, slices: int) -> None:
    """Refuse more slices than FP64 has bits for, the trim cell included.

    Raises:
        InvalidInput: naming how many are allowed.
    """
    if bits * (slices + 1) > MOST_BITS:
        raise InvalidInput("slices", slices, f"{MOST_BITS // bits - 1} or fewer of {bits} bits",
                           "FP64 cannot tell finer levels apart. Slices of the chip's cells (cell.slices) and those "
                           "asked for (-pc_analog_slices) multiply.")


@compiled
def split_digits(level, base, slices, top, cells, variance):  # type: ignore[no-untyped-def]
    """Split levels into one digit a slice; add up the cells that are on and their variance.

    `variance` is in units of (error of a top-slice cell)²; a digit of zero is a cell that is off.
    """
    for e in range(level.size):
        rest, weight = level[e], 1.0
        place = top
        for _ in range(slices):
            digit = min(rest // place, base - 1)
            rest -= digit * place
            if digit > 0:
                cells[e] += 1
                variance[e] += weight
            place = max(place // base, 1)
            weight /= base * base


@compiled
def _round(offsets, row, col, value, unit, alpha, base, error, level, trim, intended):  # type: ignore[no-untyped-def]
    """Round the blocks: each row's |errors| and the shift `alpha` go to its diagonal.

    The diagonal is rounded up, to the trim cell's step, so that nothing is lost of the guarantee.
    """
    for k in range(unit.size):
        step = unit[k]
        error[:] = 0.0
        for e in range(offsets[k], offsets[k + 1]):
            level[e] = np.int64(np.rint(abs(value[e]) / step))
            trim[e] = 0
            if row[e] != col[e]:
                error[row[e]] += abs(abs(value[e]) - step * level[e])
        for e in range(offsets[k], offsets[k + 1]):
            if row[e] == col[e]:
                fine = np.int64(np.ceil((abs(value[e]) + error[row[e]] + alpha[k]) / step * base - 1e-9))
                level[e], trim[e] = fine // base, fine % base
            intended[e] = np.sign(value[e]) * step * (level[e] + trim[e] / base)


@compiled
def _add_errors(offsets, variance, largest, deviation, read, intended, draws):  # type: ignore[no-untyped-def]
    """Turn draws into noisy conductances and the cells' variance into the deviation of reads, in place."""
    for k in range(largest.size):
        for e in range(offsets[k], offsets[k + 1]):
            spread = np.sqrt(variance[e]) * largest[k]
            if draws.size:
                draws[e] = intended[e] + deviation * spread * draws[e]
            variance[e] = read * spread


def program(
    scaled: Blocks, scale: NDArray[np.float64], sign: NDArray[np.float64], chip: Chip, *, slices: int = 1,
    shift: float = 0.5, extra_shift: NDArray[np.float64] | None = None, seed: int = 0, name: str = "", event: int = 0,
    spare: NDArray[np.int64] | None = None,
) -> Conductances:
    """Program scaled blocks on tiles of a chip: static errors are drawn here, once.

    Args:
        scaled, scale, sign: from `scale_blocks`.
        chip: whose cells take the values.
        slices: parallel cells per entry in the closed loop; slice s weighs 2^(−s·bits).
        shift: c in the stability shift α = c σ G_max sqrt(cells per row); σ the programming error.
        extra_shift: added to the shift of each block, shape (K,), in units of the scaled diagonal.
        seed, name, event: key of the programming noise.
        spare: number of the physical tile in each place, where tiles may be faulty, shape (K,); None: the first.

    Returns:
        The conductances. The diagonal is held by its cell and a trim cell of one digit less weight, so
        that a shift below one level can be set (design assumption of this project).

    Raises:
        ProgrammingFailed: the shift leaves no room for the matrix.
        InvalidInput: more slices than FP64 has bits for.
    """
    owner = scaled.owner
    simple = chip.cell.plain and not chip.faults.any and not chip.drift.any
    slices *= chip.cell.slices
    deviation = static_deviation(chip)
    read = chip.cell.read_noise or 0.0
    extra = np.zeros(scaled.count) if extra_shift is None else extra_shift
    per_row = cells_per_row(chip, scaled, deviation)
    value = scaled.value
    part = shift * deviation * np.sqrt(per_row)  # of the largest conductance, that the shift takes
    if (part > LARGEST_SHIFT).any():
        k = int(np.argmax(part))
        raise ProgrammingFailed(
            f"tile {int(scaled.tiles[k])}: the stability shift, {shift:g} × programming error {deviation:.3g} × "
            f"sqrt({per_row[k]:.3g} cells per row), would take {part[k]:.0%} of the largest conductance and leave no "
            "room for the matrix. Use a smaller -pc_analog_shift, less programming error or a smaller tile.")
    level: NDArray[np.int64] | None = None
    trim: NDArray[np.int64] | None = None
    base = 0
    bits = chip.cell.bits
    if bits is None and (chip.faults.stuck_low or chip.faults.stuck_high):
        bits = FINEST  # a stuck cell is a matter of digits
    if bits is None:
        on_diagonal = scaled.row == scaled.col
        unit = np.zeros(scaled.count)
        largest = (1.0 + extra) / (1.0 - part)  # the shifted diagonal
        np.maximum.at(largest, owner, np.abs(np.where(on_diagonal, 0.0, value)))
        alpha = part * largest + extra
        intended = value + np.where(on_diagonal, alpha[owner], 0.0)
        variance = (intended != 0).astype(float)
        cells = int(np.count_nonzero(intended))
    else:
        check_slices(bits, slices)
        base = 2**bits
        levels = base**slices - 1
        head = levels + (base - 1) / base  # the trim cell adds up to this fraction of a level
        beside, room = extra, head
        if chip.cell.sign_mapping == "bias":  # the window holds the most negative entry too, rounded up
            if levels < 3:
                raise InvalidInput("cell.sign_mapping", "bias", "pair for entries of one bit",
                                   "A bias column halves the levels: use two slices, or pair.")
            beside, room = np.zeros(scaled.count), head - 1.0
            np.maximum.at(beside, owner, -value)
            beside += extra
        top, places = base ** (slices - 1), chip.cell.places
        entries = (scaled.offsets, scaled.row, scaled.col, value)
        how = (np.sqrt(per_row), shift * deviation, max(shift * deviation, 0.5 * max(deviation, read)), beside)
        error, intended = np.empty(max(1, scaled.size)), np.empty(len(value))
        if places is None:
            unit = _choose_units(scaled.offsets, scaled.sizes, *entries[1:], float(levels), room, *how)
            largest = unit * top * (base - 1)
            alpha = part * largest + extra
            level, trim = np.empty(len(value), np.int64), np.empty(len(value), np.int64)
            _round(*entries, unit, alpha, base, error, level, trim, intended)
        else:
            (table, codes), (fine, fine_codes) = sums(places, slices), sums(places, slices + 1)
            largest = choose_largest(scaled.offsets, scaled.sizes, *entries[1:], table, fine[-1], *how)
            unit = largest / (top * (base - 1))
            alpha = part * largest + extra
            place = np.empty(len(value), np.int64)
            round_blocks(*entries, largest, alpha, table, fine, error, place, intended)
            diagonal = scaled.row == scaled.col
            held_by = np.where(diagonal, fine_codes[place], base * codes[np.where(diagonal, 0, place)])
            level, trim = held_by // base, held_by % base
    if simple:
        if level is not None and trim is not None:
            count = np.zeros(len(value), np.int64)
            variance = (trim > 0) / float(base) ** (2 * slices)
            cells = int(np.count_nonzero(trim))
            split_digits(level, base, slices, top, count, variance)
            cells += int(count.sum())
        noisy = np.zeros(0)
        if deviation:
            noisy = normal(scaled.offsets, seed=seed, word=stream(Purpose.PROGRAMMING, name), tiles=scaled.tiles,
                           event=event)
        if level is not None and trim is not None:
            written = write_levels(chip, scaled.offsets, scaled.row, level, trim, base, slices, scaled.size,
                                   scaled.tiles, seed=seed, name=name, event=event)
        else:
            on = np.flatnonzero(intended)
            written = write(chip, np.abs(intended[on]) / largest[owner[on]], owner[on] * scaled.size + scaled.row[on],
                            np.searchsorted(on, scaled.offsets), scaled.tiles, seed=seed, name=name, event=event)
        _add_errors(scaled.offsets, variance, largest, deviation, read, intended, noisy)
        held = Held(intended, noisy if deviation else intended, variance, cells,
                    np.zeros((scaled.count, scaled.size)), written, np.zeros(scaled.count))
    else:
        held = hold(chip, scaled, intended, largest, level=level, trim=trim,
                    unit=None if bits is None else unit, base=base, slices=slices, seed=seed, name=name,
                    event=event, spare=spare)
    there = Blocks(scaled.sizes, scaled.offsets, scaled.row, scaled.col, held.value, scaled.tiles, scaled.size)
    common = held.common
    if chip.cell.off_conductance:  # of all crossings, in both arrays
        weights = np.sum(1.0 / np.maximum(base, 2.0) ** np.arange(slices))
        leak = chip.cell.off_conductance / (chip.cell.conductance_max * chip.cell.window)
        common = common + (2.0 * weights * leak * largest * scaled.sizes)[:, None]
    return Conductances(there, held.intended, scale, sign, unit, largest, held.read, alpha, held.cells, common,
                        held.written, held.shared)


def rounding_cost(blocks: Blocks, chip: Chip, *, shift: float = 0.5) -> tuple[float, int]:
    """Measure what rounding to one slice adds to the diagonals, each being 1.

    Args:
        blocks, chip, shift: see `program`.

    Returns:
        The additions, summed over all rows, and how many rows there are; nothing is added to continuous cells.
    """
    rows = int(blocks.sizes.sum())
    if chip.cell.bits is None or not rows:
        return 0.0, rows
    scaled, scale, sign = scale_blocks(blocks)
    chip = replace(chip, faults=Faults(), drift=Drift(), writing=Writing(), cell=replace(
        chip.cell, off_conductance=None, off_error=None, off_read_noise=None))  # of rounding alone
    held = program(scaled, scale, sign, chip, slices=1, shift=shift)
    diagonal = np.flatnonzero(scaled.row == scaled.col)
    added = np.abs(held.intended[diagonal]) - np.abs(scaled.value[diagonal]) - held.shift[scaled.owner[diagonal]]
    return float(added.sum()), rows

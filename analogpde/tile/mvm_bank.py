"""Banks of open-loop MVM arrays: the couplings between parts of a block, multiplied in one shot an array.

One shot, in the order of the circuit: the host scales the input (block exponent), DACs drive the lines, the currents
of each row add up in the cells, amplifiers and ADCs read them, the host scales back and adds up the arrays of a block.
Lines that no cell is on are neither driven nor read, and do not take room on an array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.cost import Ledger
from analogpde.errors import ProgrammingFailed
from analogpde.tile import uneven
from analogpde.tile.blocks import Blocks
from analogpde.tile.cells import dead_rows, hold
from analogpde.tile.lines import Drawing
from analogpde.tile.noise import Purpose, normal, stream
from analogpde.tile.open_loop import OpenLines, read_out
from analogpde.tile.products import multiply
from analogpde.tile.programming import FINEST, check_slices, split_digits
from analogpde.tile.writing import write, write_levels

PLACES = 8  # arrays tried for a block at most: the first and its spares; keeps their draws apart
CALIBRATION, CALIBRATIONS = "~calibration", 32  # random inputs that set the ADCs' full scale
Crowded = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
CROWDED = 0.5  # an array with entries at more of its crossings is faster with all of them
ARRAYS = 4  # of one block at most, for the numbering of arrays: lines of two tiles, rows and columns


@dataclass(frozen=True)
class Entries:
    """The entries of K sparse rectangular blocks, sorted by block, row and column.

    Args:
        owner, row, col: block and place of each entry, shape (E,).
        value: shape (E,).
    """

    owner: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    value: NDArray[np.float64]

    def sorted(self) -> Entries:
        """Return the same entries in order, those at one place added up."""
        order = np.lexsort((self.col, self.row, self.owner))
        here = self.select(order)
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(here.owner) != 0) | (np.diff(here.row) != 0) | (np.diff(here.col) != 0)
        first = np.flatnonzero(new)
        total = np.add.reduceat(here.value, first) if len(order) else here.value
        return replace(here.select(first), value=total)

    @staticmethod
    def joined(parts: Sequence[Entries]) -> Entries:
        """Return the entries of several sets, sorted, those at one place added up."""
        return Entries(np.concatenate([e.owner for e in parts]), np.concatenate([e.row for e in parts]),
                       np.concatenate([e.col for e in parts]), np.concatenate([e.value for e in parts])).sorted()

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Entries:
        """Return the chosen entries."""
        return Entries(self.owner[which], self.row[which], self.col[which], self.value[which])

    def moved(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Entries:
        """Return the entries further down and to the right, by so much for each block."""
        return Entries(self.owner, self.row + rows[self.owner], self.col + columns[self.owner], self.value)

    def blocks(self, sizes: NDArray[np.integer], tiles: NDArray[np.int64]) -> Blocks:
        """Return the entries, sorted, as square blocks to be programmed."""
        return Blocks(sizes.astype(np.int32), starts_of(self.owner, len(sizes)), self.row.astype(np.int32),
                      self.col.astype(np.int32), self.value, tiles, int(sizes.max(initial=0)))

    @staticmethod
    def of(blocks: Blocks) -> Entries:
        """Return the entries of square blocks."""
        return Entries(blocks.owner, blocks.row.astype(np.int64), blocks.col.astype(np.int64), blocks.value)


def lines(owner: NDArray[np.int64], line: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64],
                                                                      NDArray[np.int64]]:
    """Return the lines in use: their owners, their numbers, and of each entry the index into these."""
    stride = int(line.max(initial=0)) + 1
    used, index = np.unique(owner * stride + line, return_inverse=True)
    return used // stride, used % stride, index


def starts_of(owner: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return where each owner's items begin in a list sorted by owner, shape (count + 1,)."""
    return np.searchsorted(owner, np.arange(count + 1)).astype(np.int64)


@dataclass(frozen=True)
class MvmBank:
    """P programmed open-loop arrays of one chip, worked as one batch.

    Args:
        block: the block that each array is of, shape (P,).
        row_offsets, rows: lines read, by array: rows of the block. col_offsets, cols: lines driven, its columns.
        offsets, row, col: cells in use, by array: indices into the array's own lines.
        value, deviation: programmed entries, and their standard deviation from shot to shot (empty if none).
        tiles: global ids of the arrays, which key the noise, shape (P,).
        chip, seed, word: what keys and sizes the noise.
        programmed: what programming cost.
        circuit: what the lines do besides rounding; None if nothing.
        wire_error: largest error to be expected of the wires' approximation, relative.
        shared: standard deviation of the bias cells' read noise, which all entries of a row share, shape (P,); empty
            without a bias column.
    """

    block: NDArray[np.int64]
    row_offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    col_offsets: NDArray[np.int64]
    cols: NDArray[np.int32]
    offsets: NDArray[np.int64]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    value: NDArray[np.float32]
    deviation: NDArray[np.float32]
    tiles: NDArray[np.int64]
    chip: Chip
    seed: int
    word: int
    programmed: Ledger
    circuit: OpenLines | None = None
    wire_error: float = 0.0
    shared: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def count(self) -> int:
        """Number of arrays."""
        return len(self.block)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(a.nbytes for a in (self.rows, self.cols, self.row, self.col, self.value, self.deviation))

    def subtract(
        self, x: NDArray[np.float64], y: NDArray[np.float64], event: int, *, transposed: bool = False,
    ) -> Ledger:
        """One shot of every array: y ← y − A x, block by block.

        Args:
            x, y: shape (K, columns) and (K, rows) or more; exchanged if transposed.
            event: number of this shot; the same number draws the same noise.
            transposed: drive the rows and read the columns.

        Returns:
            The operations of this application.
        """
        read = (self.row_offsets, self.rows, self.col_offsets, self.cols)
        cells = (self.row, self.col)
        if transposed:
            read, cells = (*read[2:], *read[:2]), cells[::-1]
        if self.circuit is not None and self.count:
            return self._through_lines(self.circuit, read, cells[0], cells[1], x, y, event, transposed)
        codes = self.chip.dac.codes, self.chip.adc.codes
        self._multiply((self.block, *read), cells, codes, self.word, event, -1.0, x, y)
        return Ledger(mvm_shots=self.count, dac_conversions=len(read[3]), adc_conversions=len(read[1]),
                      rounds=int(self.count > 0))

    def _multiply(
        self, lines: tuple[NDArray[Any], ...], cells: tuple[NDArray[np.int32], NDArray[np.int32]],
        codes: tuple[int, int], word: int, event: int, factor: float, x: NDArray[np.float64], y: NDArray[np.float64],
    ) -> None:
        """Let the kernel do one shot with these lines, rows and columns of the cells, and converters."""
        draws, bias = np.empty(0), np.empty(0)
        if self.shared.any():  # of each array the lines read first, then the bias cells
            counts, rows_of = np.diff(lines[1]), np.diff(self.row_offsets)
            ends = np.concatenate(([0], np.cumsum(counts + rows_of))).astype(np.int64)
            numbers = normal(ends, seed=self.seed, word=word, tiles=self.tiles, event=event)
            first = np.arange(ends[-1]) - np.repeat(ends[:-1], np.diff(ends)) < np.repeat(counts, np.diff(ends))
            draws, bias = numbers[first], numbers[~first] * np.repeat(self.shared, rows_of)
        elif self.deviation.size:
            draws = normal(lines[1], seed=self.seed, word=word, tiles=self.tiles, event=event)
        block, row_offsets, rows, col_offsets, cols = lines
        crowded = self._crowded_rows if cells[0] is self.col else self._crowded_columns
        multiply(block, row_offsets, rows, col_offsets, cols, self.offsets, *cells, self.value, self.deviation,
                 *crowded, draws, bias, cells[0] is self.col, *codes, factor, x, y)

    @cached_property
    def _crowded_columns(self) -> Crowded:
        """Crowded arrays by columns, which a product drives."""
        return self._crowd(self.row, self.col, self.row_offsets, self.col_offsets)

    @cached_property
    def _crowded_rows(self) -> Crowded:
        """Crowded arrays by rows, which a transposed product drives."""
        return self._crowd(self.col, self.row, self.col_offsets, self.row_offsets)

    def _crowd(
        self, read: NDArray[np.int32], driven: NDArray[np.int32], read_offsets: NDArray[np.int64],
        driven_offsets: NDArray[np.int64],
    ) -> Crowded:
        """Return where each crowded array begins, its entries and their variances for all crossings by driven line."""
        heights, counts = np.diff(read_offsets), np.diff(self.offsets)
        sizes = heights * np.diff(driven_offsets)
        crowded = counts >= CROWDED * sizes
        ends = np.cumsum(np.where(crowded, sizes, 0))
        starts = np.where(crowded, ends - sizes, -1).astype(np.int64)
        full = np.zeros(int(ends[-1]) if len(ends) else 0, np.float32)
        variance = np.zeros(len(full) if self.deviation.size else 0, np.float32)
        owner = np.repeat(np.arange(self.count), counts)
        here = crowded[owner]
        at = starts[owner[here]] + driven[here].astype(np.int64) * heights[owner[here]] + read[here]
        full[at] = self.value[here]
        if self.deviation.size:
            variance[at] = self.deviation[here] ** 2
        return starts, full, variance

    def _through_lines(
        self, circuit: OpenLines, read: tuple[NDArray[np.integer], ...], row: NDArray[np.int32],
        col: NDArray[np.int32], x: NDArray[np.float64], y: NDArray[np.float64], event: int, transposed: bool,
    ) -> Ledger:
        """One shot of every array, with all that its lines do; arrays that clip are repeated with half the input."""
        row_offsets, rows, col_offsets, cols = read
        heights, widths = np.diff(row_offsets), np.diff(col_offsets)
        driven = np.arange(int(widths.max(initial=0))) < widths[:, None]
        reads = np.arange(int(heights.max(initial=0))) < heights[:, None]
        share, product = np.zeros(driven.shape), np.zeros(reads.shape)
        share[driven] = x[np.repeat(self.block, widths), cols]
        largest = np.abs(share).max(axis=1, initial=0.0)
        pending = largest > 0
        with np.errstate(invalid="ignore"):  # what came in infinite goes out so
            share /= np.where(pending, largest, 1.0)[:, None]
        local = np.arange(self.count)
        part, answer, shots = np.ones(self.count), np.zeros(reads.shape), 0
        conversions = np.zeros(2, np.int64)
        own_rows, own_cols = (np.arange(len(line)) - np.repeat(ends[:-1], np.diff(ends))
                              for line, ends in ((rows, row_offsets), (cols, col_offsets)))
        for repeat in range(self.chip.bound_repeats + 1):
            sizes = np.full(self.count, max(share.shape[1], product.shape[1]), np.int32)
            drawing = Drawing(self.seed, f"{circuit.name}~{repeat}", self.tiles, sizes, event)
            volts = circuit.convert(self.chip, share, part, driven, drawing)
            product[:] = 0.0
            word = stream(Purpose.MULTIPLY, f"{circuit.name}~{repeat}") if repeat else self.word
            own = (local, row_offsets, own_rows.astype(np.int32), col_offsets, own_cols.astype(np.int32))
            self._multiply(own, (row, col), (0, 0), word, event, 1.0, volts, product)
            got, clipped = circuit.read(self.chip, product, part, reads, drawing, transposed)
            answer[pending] = got[pending]
            shots += int(pending.sum())
            conversions += [int(widths[pending].sum()), int(heights[pending].sum())]
            pending = pending & clipped & (0.5 * part >= self.chip.dac.least_part)
            if not pending.any():
                break
            part = np.where(pending, 0.5 * part, part)
        answer *= largest[:, None]
        np.subtract.at(y, (np.repeat(self.block, heights), rows), answer[reads])
        return Ledger(mvm_shots=shots, dac_conversions=int(conversions[0]), adc_conversions=int(conversions[1]))


def _calibrated(bank: MvmBank, circuit: OpenLines) -> MvmBank:
    """Return a bank whose ADCs have the full scale that its largest outputs for random inputs ask for, either way."""
    count, ends = bank.count, np.arange(bank.count + 1, dtype=np.int64)
    word = stream(Purpose.PROBE, circuit.name + CALIBRATION)
    lines, offsets, cells = (bank.rows, bank.cols), (bank.row_offsets, bank.col_offsets), (bank.row, bank.col)
    reach = np.zeros((2, count))
    for transposed in (0, 1):
        read, driven = transposed, 1 - transposed
        heights, widths = np.diff(offsets[read]), np.diff(offsets[driven])
        own = [(np.arange(len(lines[k])) - np.repeat(offsets[k][:-1], np.diff(offsets[k]))).astype(np.int32)
               for k in (read, driven)]
        most = int(widths.max(initial=0))
        for shot in range(CALIBRATIONS):
            event = 2 * shot + transposed
            x = normal(ends * most, seed=bank.seed, word=word, tiles=bank.tiles, event=event).reshape(count, most)
            x *= np.arange(most) < widths[:, None]
            x /= np.abs(x).max(axis=1, keepdims=True, initial=1e-300)
            product = np.zeros((count, int(heights.max(initial=0))))
            bank._multiply((ends[:-1], offsets[read], own[0], offsets[driven], own[1]),
                           (cells[read], cells[driven]), (0, 0), word, event, 1.0, x, product)
            reach[transposed] = np.maximum(reach[transposed], np.abs(product).max(axis=1, initial=0.0))
    scale = bank.chip.adc.calibrated or 1.0
    return replace(bank, circuit=replace(circuit, reach=np.where(reach > 0, scale * reach, 1.0)))


def _hold(
    chip: Chip, arrays: Blocks, aimed: NDArray[np.float64], largest: NDArray[np.float64],
    level: NDArray[np.int64] | None, unit: NDArray[np.float64], base: int, slices: int, seed: int, name: str,
    event: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], Ledger]:
    """Return what arrays hold, its deviation from shot to shot, that of bias cells, what was aimed at, and the cost.

    An array that a probe finds dead is programmed on a spare one.
    """
    pending = np.full(arrays.count, True)
    held, read, intended, spent = np.zeros(len(aimed)), np.zeros(len(aimed)), aimed.copy(), Ledger()
    shared = np.zeros(arrays.count)
    for number in range(1 + chip.faults.spares):
        spare = np.full(arrays.count, number)
        there = hold(chip, arrays, aimed, largest, level=level, trim=None if level is None else np.zeros_like(level),
                     unit=None if level is None else unit, base=base, slices=slices, seed=seed, name=name,
                     event=event * PLACES + number, spare=spare, feedback=False)
        good = pending & ~dead_rows(chip, arrays, slices=0, seed=seed, name=name, spare=spare).any(axis=1)
        mine = good[arrays.owner]
        held[mine], read[mine], intended[mine] = there.value[mine], there.read[mine], there.intended[mine]
        shared[good] = there.shared[good]
        tried = int(pending.sum())
        cells, pulses, turns = (amount * tried // max(1, arrays.count)
                                for amount in (there.cells, there.written.pulses, there.written.in_turn))
        spent.add(Ledger(cells_written=cells, tiles_programmed=tried, tiles_reprogrammed=tried if number else 0,
                         tiles_replaced=tried if number else 0, write_pulses=pulses, pulses_in_turn=turns))
        pending &= ~good
        if not pending.any():
            return held, read, shared, intended, spent
    raise ProgrammingFailed(
        f"array {int(arrays.tiles[np.argmax(pending)])}: {int(pending.sum())} array(s) are dead, and so are "
        f"{chip.faults.spares} spare ones in the place of each. A chip with fewer dead tiles and lines, or more "
        "spares, is needed.")


def program_mvm(
    entries: Entries, tiles: NDArray[np.int64], chip: Chip, *, slices: int = 1, seed: int = 0, name: str = "",
    event: int = 0,
) -> tuple[MvmBank, NDArray[np.float64]]:
    """Program blocks on open-loop arrays, several an array size where their lines in use exceed it.

    Args:
        entries: of K blocks; each must have at most two tiles of rows and of columns in use.
        tiles: global ids of the blocks, shape (K,); array p of block k has the id 4·tiles[k] + p.
        chip: the chip; the largest entry of an array takes the largest conductance, the others the nearest level.
        slices, seed, name, event: see `analogpde.tile.programming.program`.

    Returns:
        The bank, and the values that programming aimed at, in the order of `entries`.
    """
    tile = chip.lines
    count = len(tiles)
    part = np.zeros(len(entries.value), np.int64)
    for line in (entries.row, entries.col):
        owners, _, index = lines(entries.owner, line)
        rank = np.arange(len(owners)) - starts_of(owners, count)[owners]
        piece = (rank // tile)[index]
        if piece.max(initial=0) > 1:
            raise ValueError(f"a block with more than {2 * tile} lines in use")
        part = 2 * part + piece
    ids, array = np.unique(entries.owner * ARRAYS + part, return_inverse=True)
    number = len(ids)
    order = np.lexsort((entries.col, entries.row, array))
    array, row, col, value = array[order], entries.row[order], entries.col[order], entries.value[order]
    row_owner, rows, row_index = lines(array, row)
    col_owner, cols, col_index = lines(array, col)
    row_offsets, col_offsets = starts_of(row_owner, number), starts_of(col_owner, number)
    offsets = starts_of(array, number)

    keys = ARRAYS * tiles[ids // ARRAYS] + ids % ARRAYS
    given = None
    if chip.cell.crowded:  # cells of zeros make noise too: all crossings of lines in use
        across = np.diff(col_offsets)
        cells_of = np.diff(row_offsets) * across
        offsets = np.concatenate(([0], np.cumsum(cells_of))).astype(np.int64)
        given = offsets[array] + (row_index - row_offsets[array]) * across[array] + (col_index - col_offsets[array])
        array = np.repeat(np.arange(number), cells_of)
        place = np.arange(offsets[-1]) - offsets[array]
        row_index, col_index = row_offsets[array] + place // across[array], col_offsets[array] + place % across[array]
        sparse, value = value, np.zeros(len(place))
        value[given] = sparse
    largest = np.zeros(number)
    np.maximum.at(largest, array, np.abs(value))
    shared = np.zeros(number)
    simple = chip.cell.plain and not chip.faults.any and not chip.drift.any
    slices *= chip.cell.slices
    bits = chip.cell.bits
    if bits is None and (chip.faults.stuck_low or chip.faults.stuck_high):
        bits = FINEST
    level: NDArray[np.int64] | None = None
    units, base = np.zeros(number), 0
    if bits is None:
        aimed, variance = value, (value != 0).astype(float)
        cells = int(np.count_nonzero(value))
    else:
        check_slices(bits, slices)
        base = 2**bits
        top = base ** (slices - 1)
        units = largest / (base**slices - 1)
        largest *= top * (base - 1) / (base**slices - 1)  # a fully-on cell of the top slice
        if chip.cell.sign_mapping == "bias":  # half of the levels for each sign
            units *= 2.0
            largest *= 2.0
        unit, places = units[array], chip.cell.places
        level = np.rint(np.divide(np.abs(value), unit, out=np.zeros(len(value)), where=unit > 0)).astype(np.int64)
        aimed = np.sign(value) * unit * level
        if places is not None:
            table, codes = uneven.sums(places, slices)
            largest *= (base**slices - 1) / (top * (base - 1) * table[-1])
            near = uneven.nearest(table, np.abs(value) / np.where(largest > 0, largest, 1.0)[array])
            level, aimed = codes[near], np.sign(value) * largest[array] * table[near]
        on, variance = np.zeros(len(value), np.int64), np.zeros(len(value))
        split_digits(level, base, slices, top, on, variance)
        cells = int(on.sum())
    if simple:
        most = int(np.diff(row_offsets).max(initial=1))
        place = (row_index - row_offsets[array]).astype(np.int64)
        if level is not None:
            written = write_levels(chip, offsets, place, level, np.zeros_like(level), base, slices, most, keys,
                                   seed=seed, name=name, event=event)
        else:
            used = np.flatnonzero(value)
            written = write(chip, np.abs(value[used]) / largest[array[used]], array[used] * most + place[used],
                            np.searchsorted(used, offsets), keys, seed=seed, name=name, event=event)
        spent = Ledger(cells_written=cells, tiles_programmed=number, write_pulses=written.pulses,
                       pulses_in_turn=written.in_turn)
        spread = np.sqrt(variance) * largest[array]
        held, deviation = aimed, (chip.cell.read_noise or 0.0) * spread
        if chip.cell.programming_error:
            draws = normal(offsets, seed=seed, word=stream(Purpose.PROGRAMMING, name), tiles=keys, event=event)
            held = aimed + chip.cell.programming_error * spread * draws
    else:
        tall = np.diff(row_offsets).astype(np.int32)
        lines_in_use = Blocks(tall, offsets, (row_index - row_offsets[array]).astype(np.int32),
                              (col_index - col_offsets[array]).astype(np.int32), value, keys,
                              int(max(tall.max(initial=0), np.diff(col_offsets).max(initial=0))))
        held, deviation, shared, aimed, spent = _hold(
            chip, lines_in_use, aimed, largest, level, units, base, slices, seed, name, event)
    row_index, col_index = row_index - row_offsets[array], col_index - col_offsets[array]
    noise, circuit, wire_error = deviation, None, 0.0
    if number and not (chip.ideal_loop and chip.ideal_lines):
        heights, widths = np.diff(row_offsets), np.diff(col_offsets)
        width = int(max(heights.max(), widths.max()))
        drawn, dac, adc = OpenLines.draw(keys, width, chip, seed=seed, name=name)
        full = np.where(largest > 0, largest, 1.0)
        seen = read_out(offsets, row_index, col_index, held, full, heights, widths, chip, drawn[:, : heights.max()])
        noise = np.where(seen.source >= 0, noise[seen.source] * seen.passed, 0.0)
        held, offsets, row_index, col_index = seen.value, seen.offsets, seen.row, seen.col
        wire_error = seen.wire_error
        if not chip.ideal_lines:
            offset = np.zeros((number, width))
            offset[:, : seen.offset.shape[1]] = seen.offset
            circuit = OpenLines(OpenLines.full_scales(seen, full, chip), full, offset, dac, adc, name)
    bank = MvmBank(
        ids // ARRAYS, row_offsets, rows.astype(np.int32), col_offsets, cols.astype(np.int32), offsets,
        row_index.astype(np.int32), col_index.astype(np.int32),
        held.astype(np.float32), np.zeros(0, np.float32) if chip.quiet else noise.astype(np.float32), keys, chip,
        seed, stream(Purpose.MULTIPLY, name), spent, circuit, wire_error, shared if shared.any() else np.zeros(0))
    if circuit is not None and chip.adc.calibrated is not None:
        bank = _calibrated(bank, circuit)
    if given is not None:
        aimed = aimed[given]
    unsorted = np.empty(len(order))
    unsorted[order] = aimed
    return bank, unsorted

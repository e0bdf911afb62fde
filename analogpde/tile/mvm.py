"""The bit-sliced multiplier (HP-MVM): fixed-point products put together from narrow slices.

Matrix and vector are rounded to `bits` bits below their largest magnitude and cut into slices of a few bits. Each slice
of the matrix is held by cells, each slice of the vector put on the lines by DACs; the ADC of a row reads the product of
two slices, which is shifted and added digitally. Where every digit is read right this is fixed-point arithmetic, and it
is computed as such. Else `SlicedBank` emulates the cells and the ADCs, in one of two ways:

- explicit: each row's current is formed, disturbed and converted for each pair of slices;
- one draw: the noise of all pairs is drawn at once, Σ_st w_st² (σ² Σ_j x_tj² + d²/12). For the read noise, Gaussian in
  every pair, that is the exact distribution. Rounding by an ADC of step d is noise of variance d²/12 only where the
  noise of a pair is at least d/2, which carries the sum over most of a step; below, explicit is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip, Multiplier, Wire
from analogpde.compiled import compiled
from analogpde.cost import Ledger
from analogpde.tile.noise import Purpose, normal, stream
from analogpde.tile.wires import approximate
from analogpde.tile.writing import Written, write_levels

SLICE_BITS = 3
# ADC steps per standard deviation of the noise up to which rounding is one more independent noise.
SMOOTH = 2.0
# A progressive residual uses as many slices as make the others' part at most this fraction of it.
UNRESOLVED = 0.1
_ROOM = 1 << 21  # entries of full arrays worked on at a time


def slices(bits: int, width: int = SLICE_BITS) -> int:
    """Return the number of slices of `width` bits that `bits` bits need."""
    return -(-bits // width)


def rounds_of(multiplier: Multiplier, bits: int, kept: int | None = None) -> int:
    """Return how many settlings of a product follow each other: its input slices, or one if each has its own arrays.

    Args:
        bits: of the input. kept: top slices that are used; None: all.
    """
    inputs = slices(bits, multiplier.input_bits)
    return 1 if multiplier.order == "parallel" else inputs if kept is None else min(kept, inputs)


def left_out(
    multiplier: Multiplier, bits: int, kept: int, steps: tuple[float, float], sizes: tuple[float, float],
    matrix: tuple[int, float],
) -> float:
    """Return a bound of what a product lacks that is made of the top slices alone, ‖Δ‖ ≤ n δA ‖x‖ + ‖A‖_∞ δx √N.

    Args:
        multiplier, bits: of the slices. kept: top slices of matrix and input that are used.
        steps: of the fixed-point matrix and input; δ is the value of the last digit used, 0 if that is the last.
        sizes: ‖x‖ and √N. matrix: n, most entries of a row, and ‖A‖_∞.
    """
    deltas = []
    for width, step in zip((multiplier.cell_bits, multiplier.input_bits), steps, strict=True):
        dropped = slices(bits, width) - kept
        deltas.append(step * 2.0 ** (width * dropped) if dropped > 0 else 0.0)
    return matrix[0] * deltas[0] * sizes[0] + matrix[1] * deltas[1] * sizes[1]


def to_fixed_point(values: NDArray[np.float64], bits: int, largest: float) -> NDArray[np.float64]:
    """Round values to fixed point.

    Args:
        values: what to round, any shape.
        bits: magnitude bits; the step is `largest`·2^(−bits), the largest value its own top code.
        largest: largest magnitude (over all ranks); 0 returns the values.

    Returns:
        The rounded values. From 53 bits up FP64 itself is the finer grid near `largest`.
    """
    if largest == 0.0 or bits >= 53:
        return values.copy()
    # a power of two as the exponent: scaling is then exact and a shift in the hardware
    step = 2.0 ** max(np.ceil(np.log2(largest)) - bits, -1074.0)  # FP64 itself ends at 2^-1074
    return np.asarray(np.rint(values / step) * step)


def step_of(bits: int, largest: float) -> float:
    """Return the step of `to_fixed_point`; 1 where FP64 itself is the grid or there is nothing to round."""
    return float(2.0 ** max(np.ceil(np.log2(largest)) - bits, -1074.0)) if largest > 0.0 else 1.0


def keep_top(values: NDArray[np.float64], step: float, bits: int, width: int, kept: int) -> NDArray[np.float64]:
    """Return fixed-point values of which only the `kept` top slices of `width` bits count, cut towards zero."""
    dropped = slices(bits, width) - kept
    if dropped <= 0:
        return values
    coarse = step * 2.0 ** (width * dropped)
    return np.asarray(np.trunc(values / coarse) * coarse)


@compiled
def _cut(codes, width, out):  # type: ignore[no-untyped-def]
    """Fill out[:, s] with the signed digits of integers, the top slice first; it alone may reach 2^width."""
    count = out.shape[1]
    for e in range(codes.size):
        rest = abs(codes[e])
        for s in range(count):
            place = width * (count - 1 - s)
            digit = rest >> place
            rest -= digit << place
            out[e, s] = digit if codes[e] > 0 else -digit


@compiled
def _multiply_explicitly(starts, rows, col, digits, error, x, weights, kept_rows, kept_inputs, deviation, draws, step,  # type: ignore[no-untyped-def]
                         limit, y):
    """Add the products of the slices that count, line by line, each disturbed and converted by itself."""
    at = 0
    for line in range(rows.size):
        total = 0.0
        for s in range(kept_rows):
            for t in range(kept_inputs):
                current, square = 0.0, 0.0
                for e in range(starts[line], starts[line + 1]):
                    digit = digits[e, s]
                    if digit != 0:
                        held = float(digit)
                        if error.size:
                            held += error[e, s]
                        current += held * x[col[e], t]
                        square += float(x[col[e], t] * x[col[e], t])
                if deviation > 0.0:
                    current += deviation * np.sqrt(square) * draws[at]
                    at += 1
                if step > 0.0:
                    current = min(max(np.rint(current / step) * step, -limit[line]), limit[line])
                total += weights[s, t] * current
        y[rows[line]] += total


@compiled
def _multiply_at_once(starts, rows, col, held, square, x, x_square, rounding, draws, y):  # type: ignore[no-untyped-def]
    """Add the products of whole entries, line by line, with one draw for the noise of all slices."""
    for line in range(rows.size):
        current, variance = 0.0, rounding[line]
        for e in range(starts[line], starts[line + 1]):
            current += held[e] * x[col[e]]
            variance += square[e] * x_square[col[e]]
        y[rows[line]] += current + np.sqrt(variance) * draws[line]


@dataclass(frozen=True)
class SlicedBank:
    """The programmed arrays of a matrix in fixed point, one for each occupied block of a tile's size and each slice.

    Args:
        multiplier: of the chip. bits: of matrix and vector.
        starts, rows: entries of each line, a row of the matrix within one block, and its row, shape (L + 1,) and (L,).
        block_lines: lines of each block, offsets, shape (B + 1,). tiles: global ids of the blocks, shape (B,).
        col: of each entry. digits: signed, shape (E, S), top slice first. error: what they are off by, or empty.
        fullest: most entries of a line in the line's block, shape (L,): sets the range of the ADCs.
        seed, name: what keys the noise.
    """

    multiplier: Multiplier
    bits: int
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    block_lines: NDArray[np.int64]
    tiles: NDArray[np.int64]
    col: NDArray[np.int64]
    digits: NDArray[np.int16]
    error: NDArray[np.float32]
    fullest: NDArray[np.int64]
    seed: int
    name: str

    @property
    def pairs(self) -> tuple[int, int]:
        """Slices of the matrix and of the input."""
        return slices(self.bits, self.multiplier.cell_bits), slices(self.bits, self.multiplier.input_bits)

    def _weights(self) -> NDArray[np.float64]:
        """Return 2^shift of each pair of slices."""
        rows, inputs = self.pairs
        m = self.multiplier
        return np.asarray(2.0 ** (m.cell_bits * np.arange(rows - 1, -1, -1.0)[:, None]
                                  + m.input_bits * np.arange(inputs - 1, -1, -1.0)))

    def _converter(self) -> tuple[float, NDArray[np.float64]]:
        """Return the step of the ADCs in digits, the largest over the lines, and the range of each line."""
        m = self.multiplier
        most = np.asarray(self.fullest * ((2**m.cell_bits - 1) * (2**m.input_bits - 1)), np.float64)
        if m.adc_bits is None:
            return 0.0, most
        step = max(1.0, float(most.max(initial=0.0)) / (2 ** (m.adc_bits - 1) - 1))
        return step, np.asarray(np.ceil(most / step) * step, np.float64)

    def smooth(self, digits: NDArray[np.int64]) -> bool:
        """Tell whether one draw has the distribution of all: no ADC, or noise of at least half a step in each pair.

        Args:
            digits: of the input, shape (n, T).
        """
        step, _ = self._converter()
        if step == 0.0 or not len(self.rows):
            return True
        m = self.multiplier
        used = digits[np.unique(self.col)].astype(float)
        quietest = np.sqrt((used**2).mean(axis=0).min()) if used.size else 0.0
        on = np.count_nonzero(self.digits, axis=0).min() / len(self.rows)
        return bool(SMOOTH * (m.read_noise or 0.0) * (2**m.cell_bits - 1) * np.sqrt(on) * quietest >= step)

    def multiply(
        self, codes: NDArray[np.int64], rows: int, event: int, *, kept: int | None = None,
        path: Literal["auto", "explicit", "at once"] = "auto",
    ) -> NDArray[np.float64]:
        """Return the product with a vector of integers, in units of both steps.

        Args:
            codes: the vector, shape (n,), |codes| ≤ 2^bits.
            rows: of the result. event: number of this product; the same number draws the same noise.
            kept: top slices of matrix and input that are used; None: all.
            path: see the module; auto chooses.
        """
        m = self.multiplier
        shape = self.pairs
        used = shape if kept is None else (min(kept, shape[0]), min(kept, shape[1]))
        x = np.zeros((len(codes), shape[1]), np.int64)
        _cut(codes, m.input_bits, x)
        out = np.zeros(rows)
        noise = (m.read_noise or 0.0) * (2**m.cell_bits - 1)
        weights = self._weights()
        step, limit = self._converter()
        word = stream(Purpose.MULTIPLY, self.name + "~sliced")
        if path == "explicit" or (path == "auto" and not self.smooth(x[:, : used[1]])):
            draws = np.zeros(0)
            if noise:
                draws = normal(self.block_lines * (used[0] * used[1]), seed=self.seed, word=word, tiles=self.tiles,
                               event=event)
            _multiply_explicitly(self.starts, self.rows, self.col, self.digits, self.error, x, weights, *used, noise,
                                 draws, step, limit, out)
            return out
        top = weights[: used[0], : used[1]]
        by_slice, by_input = top[:, 0] / top[0, 0], top[0]
        held = (self.digits[:, : used[0]] + (self.error[:, : used[0]] if self.error.size else 0.0)) @ by_slice
        square = (self.digits[:, : used[0]] != 0) @ by_slice**2 * noise**2
        values = x[:, : used[1]] @ by_input
        squares = x[:, : used[1]].astype(float) ** 2 @ by_input**2
        rounding = np.full(len(self.rows), float((top**2).sum()) * step**2 / 12.0)
        draws = np.zeros(len(self.rows))
        if noise or step:
            draws = normal(self.block_lines, seed=self.seed, word=word, tiles=self.tiles, event=event)
        _multiply_at_once(self.starts, self.rows, self.col, held, square, values, squares, rounding, draws, out)
        return out


def program_sliced(
    indptr: NDArray[np.integer], col: NDArray[np.integer], codes: NDArray[np.int64], bits: int, multiplier: Multiplier,
    tile: int, *, blocks: NDArray[np.int64] | None = None, place: NDArray[np.int64] | None = None, first: int = 0,
    wire: Wire | None = None, conductance: float = 1.0, seed: int = 0, name: str = "", event: int = 0,
) -> SlicedBank:
    """Program a matrix of integers on arrays; blocks without an entry get none.

    Args:
        indptr, col, codes: rows in compressed form, columns ascending; |codes| ≤ 2^bits.
        bits, multiplier: see `SlicedBank`. tile: rows and columns of an array.
        blocks: block column of each entry; None: col // tile. place: column of the array; None: col % tile.
        wire: of the arrays; None: ideal. conductance: of the largest digit, S.
        first: global id of the first block; they are numbered in order.
        seed, name, event: key of the programming errors.
    """
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)).astype(np.int64)
    column = np.asarray(col, np.int64) // tile if blocks is None else blocks
    order = np.lexsort((col, row, column, row // tile))
    row, column, at = row[order], column[order], np.asarray(col, np.int64)[order]
    block_of = (row // tile) * (int(column.max(initial=0)) + 1) + column
    new_block = np.ones(len(row), bool)
    new_block[1:] = block_of[1:] != block_of[:-1]
    new_line = new_block.copy()
    new_line[1:] |= row[1:] != row[:-1]
    lines = np.flatnonzero(new_line)
    starts = np.append(lines, len(row)).astype(np.int64)
    owner = np.cumsum(new_block)[lines] - 1
    count = int(new_block.sum())
    tiles = first + np.arange(count, dtype=np.int64)
    digits = np.zeros((len(row), slices(bits, multiplier.cell_bits)), np.int16)
    _cut(codes[order], multiplier.cell_bits, digits)
    fullest = np.zeros(count, np.int64)
    np.maximum.at(fullest, owner, np.diff(starts))
    error = np.zeros((0, 0), np.float32)
    if multiplier.programming_error:
        entries = np.append(np.flatnonzero(new_block), len(row)).astype(np.int64) * digits.shape[1]
        draws = normal(entries, seed=seed, word=stream(Purpose.PROGRAMMING, name + "~sliced"), tiles=tiles, event=event)
        error = draws.reshape(digits.shape) * (multiplier.programming_error * (2**multiplier.cell_bits - 1))
        error = error.astype(np.float32)
    if wire is not None and not wire.ideal:
        columns = np.asarray(col, np.int64) % tile if place is None else place
        held = digits.astype(np.float64) + (error if error.size else 0.0)
        seen = _wired(held, row % tile, columns[order], np.cumsum(new_block) - 1, count, tile, wire,
                      conductance / (2**multiplier.cell_bits - 1))
        error = (seen - digits).astype(np.float32)
    return SlicedBank(multiplier, bits, starts, row[lines], np.searchsorted(owner, np.arange(count + 1)), tiles, at,
                      digits, error, fullest[owner], seed, name)


def _wired(
    held: NDArray[np.float64], row: NDArray[np.int64], col: NDArray[np.int64], owner: NDArray[np.int64], count: int,
    tile: int, wire: Wire, digit: float,
) -> NDArray[np.float64]:
    """Return what is read of digits behind the wires of their arrays, entry by entry, shape of `held`.

    Each slice has arrays of its own, one for each sign. Couplings of other entries are left out, as
    `analogpde.tile.wires.approximate` does: of second order in what the wires change.

    Args:
        held: digits of the entries, shape (E, S). row, col: in the array. owner: block of each, ascending.
        count: blocks. digit: conductance of a digit of one, S.
    """
    seen = np.empty_like(held, np.float64)
    step = max(1, _ROOM // tile**2)
    for start in range(0, count, step):
        first, last = np.searchsorted(owner, (start, start + step))
        mine = slice(first, last)
        blocks = min(step, count - start)
        ohms = [np.full(2 * blocks, (r or 0.0) * digit) for r in (wire.row, wire.column)]
        for s in range(held.shape[1]):
            at = (owner[mine] - start + blocks * (held[mine, s] < 0), row[mine], col[mine])
            arrays = np.zeros((2 * blocks, tile, tile))
            arrays[at] = np.abs(held[mine, s])
            through, _ = approximate(arrays, *ohms)
            seen[mine, s] = np.sign(held[mine, s]) * through[at]
    return seen


def write_sliced(
    codes: NDArray[np.int64], bits: int, chip: Chip, *, first: int = 0, seed: int = 0, name: str = "",
) -> Ledger:
    """Return what writing the slices of a matrix takes: cells and pulses; a digit of zero is a cell that is off.

    Cells are verified to the window of the multiplier's programming error; with none, to half a digit, which the sums
    that are read to the last digit need.

    Args:
        codes: of the entries. bits, chip: of the slices.
        first: what keys the draws beside seed and name: number of the first row.
    """
    m, largest = chip.multiplier, 2**chip.multiplier.cell_bits - 1
    tolerance = np.sqrt(3.0) * m.programming_error if m.programming_error else 0.5 / largest
    base, count = largest + 1, slices(bits, m.cell_bits)
    # the top digit alone may be one too many: a cell at its largest conductance
    level = np.where(np.abs(codes) >= base**count, largest * base ** (count - 1), np.abs(codes))
    ends, total = np.array([0, len(codes)]), Written()
    for copy in range(slices(bits, m.input_bits) if m.order == "parallel" else 1):
        total += write_levels(chip, ends, np.zeros(len(codes), np.int64), level, np.zeros_like(level), base, count,
                              1, np.array([first]), seed=seed, name=name + "~sliced", event=copy,
                              tolerance=float(tolerance))
    return Ledger(cells_written=total.cells, write_pulses=total.pulses)

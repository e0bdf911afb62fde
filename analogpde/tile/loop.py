"""The closed loop: from the conductances of a tile to the matrix that its amplifiers solve.

Row node i is the inverting input of amplifier i, whose output v_i drives column i; inverter j drives column j of the
array of negative entries with −(1 + ε_j) v_j + o_j. Kirchhoff's law at the row nodes, u_i = V_i − v_i/A, gives

    [G⁺ − G⁻ (1 + ε) + D/A] v = b + D V − G⁻ o,

D the total conductance at each row node: cells that leak and the input conductance included. With wires G⁺, G⁻ and D
are replaced by what `analogpde.tile.wires` makes of them. An inverter of two resistors of ratio ρ and an amplifier of
gain A' and offset V' has 1 + ε = ρ h and o = (1 + ρ) h V', h = 1/(1 + (1 + ρ)/A'). Checked against a nodal solver and
ngspice (tests/tile/test_ngspice.py). All in units of the scaled block; voltages in volts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.tile.blocks import Blocks
from analogpde.tile.noise import Purpose, normal, stream
from analogpde.tile.programming import Conductances
from analogpde.tile.wires import approximate, eliminate, error_estimate

Array = NDArray[np.float64]
LARGEST_EXACT = 128  # rows up to which wires are eliminated exactly unless said otherwise
NEGLIGIBLE = 2.0**-30
PARTS = "~parts"  # behind the noise's name: what is drawn once for the parts of a tile other than its cells
_PER_LINE = 5


@dataclass(frozen=True)
class Spread:
    """What differs from part to part, drawn once per tile, standard normal where not said; shape (K, n) each.

    Args:
        offset, inverter_offset: V. ratio: of the inverters' resistors, about 1. dac, adc: offsets of the converters,
            fractions of the full scale.
    """

    offset: Array
    inverter_offset: Array
    ratio: Array
    dac: Array
    adc: Array

    @staticmethod
    def draw(blocks: Blocks, chip: Chip, *, seed: int, name: str) -> Spread:
        """Draw the parts of each tile: they stay when its cells are written again."""
        count, n = blocks.count, blocks.size
        deviations = (chip.amplifier.offset, chip.inverter.offset, chip.inverter.mismatch, chip.dac.offset,
                      chip.adc.offset)
        drawn = np.zeros((count, _PER_LINE, n))
        if any(deviations):
            lengths = _PER_LINE * blocks.sizes.astype(np.int64)
            offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
            numbers = normal(offsets, seed=seed, word=stream(Purpose.PROGRAMMING, name + PARTS), tiles=blocks.tiles,
                             event=0)
            owner = np.repeat(np.arange(count), lengths)
            within = np.arange(len(owner)) - offsets[owner]
            drawn[owner, within // blocks.sizes[owner], within % blocks.sizes[owner]] = numbers
        scaled = [drawn[:, k] * (deviation or 0.0) for k, deviation in enumerate(deviations)]
        return Spread(scaled[0], scaled[1], 1.0 + scaled[2], scaled[3], scaled[4])

    def select(self, which: NDArray[np.int64]) -> Spread:
        """Return the parts of the named tiles."""
        return Spread(self.offset[which], self.inverter_offset[which], self.ratio[which], self.dac[which],
                      self.adc[which])


@dataclass(frozen=True)
class Loop:
    """K closed loops, in units of the scaled blocks.

    Args:
        blocks: the matrices that the loops solve.
        load: total conductance at the row nodes, D: shape (K, n), or (K, n, n) behind exactly eliminated wires.
        starts, passed: what the wires leave of each cell, passed[starts[k]:starts[k + 1]] in the order of the
            programmed entries of tile k.
        offset: input-referred: what adds to the right-hand side in volts, shape (K, n).
        inverted: magnitudes of what the inverters drive, shape (K, n, n); None if the inverters have no pole.
        wire_error: relative error to be expected of approximated wires, shape (K,).
    """

    blocks: Blocks
    load: Array
    starts: NDArray[np.int64]
    passed: Array
    offset: Array
    inverted: Array | None
    wire_error: Array

    def select(self, which: NDArray[np.int64]) -> Loop:
        """Return the loops of the named tiles."""
        lengths = np.diff(self.starts)[which]
        starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        entries = np.repeat(self.starts[which] - starts[:-1], lengths) + np.arange(starts[-1])
        return Loop(self.blocks.select(which), self.load[which], starts, self.passed[entries], self.offset[which],
                    None if self.inverted is None else self.inverted[which], self.wire_error[which])


def inverter_gain(ratio: Array, gain: float | None) -> Array:
    """Return h of inverters with resistor ratio ρ and amplifiers of a gain."""
    return np.ones_like(ratio) if gain is None else 1.0 / (1.0 + (1.0 + ratio) / gain)


def siemens(held: Conductances, chip: Chip) -> Array:
    """Return the conductance of a unit of the scaled blocks, S, shape (K,)."""
    return np.asarray(chip.cell.conductance_max * chip.cell.window / held.largest)


def compensated(scaled: Blocks, chip: Chip) -> Blocks:
    """Take off the diagonals what the finite gain will add to them: Σ_j |a_ij|/A of each row."""
    if chip.amplifier.gain is None or not chip.amplifier.compensated:
        return scaled
    total = np.bincount(scaled.owner * scaled.size + scaled.row, np.abs(scaled.value), scaled.count * scaled.size)
    diagonal = scaled.row == scaled.col
    extra = total[scaled.owner * scaled.size + scaled.row] / chip.amplifier.gain
    return replace(scaled, value=scaled.value - np.where(diagonal, extra, 0.0))


def close(held: Conductances, chip: Chip, spread: Spread) -> Loop:
    """Close the loop around programmed conductances.

    Args:
        held: of K blocks. chip: whose amplifiers, inverters and wires. spread: of these blocks.
    """
    blocks = held.blocks
    owner, count, n = blocks.owner, blocks.count, blocks.size
    unit = siemens(held, chip)
    inside = np.arange(n) < blocks.sizes[:, None]
    h = inverter_gain(spread.ratio, chip.inverter.gain)
    second = (1.0 + spread.ratio) * h * spread.inverter_offset
    factor = spread.ratio * h
    driven = (chip.amplifier.input_conductance or 0.0) / unit
    beside = np.where(inside, driven[:, None] + held.common, 0.0)
    inverse_gain = 0.0 if chip.amplifier.gain is None else 1.0 / chip.amplifier.gain
    wired = not chip.wire.ideal
    exact = wired and (chip.wire.elimination == "exact"
                       or (chip.wire.elimination == "auto" and n <= LARGEST_EXACT))
    negative = blocks.value < 0
    passed, wire_error = np.ones(len(blocks.value)), np.zeros(count)
    if wired:
        arrays = np.zeros((2, count, n, n))
        arrays[negative.astype(int), owner, blocks.row, blocks.col] = np.abs(blocks.value)
        row, column = (chip.wire.row or 0.0) * unit, (chip.wire.column or 0.0) * unit
        if exact:
            (plus, across), (minus, other) = (eliminate(array, row, column) for array in arrays)
            load = across + other
            load[:, np.arange(n), np.arange(n)] += np.where(inside, beside, 1.0)
            matrix = plus - minus * factor[:, None, :] + load * inverse_gain
            seen = _full(blocks, matrix)
            offset = np.einsum("kij,kj->ki", load, spread.offset) - np.einsum("kij,kj->ki", minus, second)
        else:
            (plus, change), (minus, other_change) = (approximate(array, row, column) for array in arrays)
            wire_error = np.maximum(error_estimate(change), error_estimate(other_change))
        through = np.where(negative, minus[owner, blocks.row, blocks.col], plus[owner, blocks.row, blocks.col])
        passed = np.divide(through, np.abs(blocks.value), out=np.ones(len(through)), where=blocks.value != 0)
    if not exact:
        magnitude = np.abs(blocks.value) * passed
        rows = owner * n + blocks.row
        load = np.bincount(rows, magnitude, count * n).reshape(count, n) + beside
        drives = np.where(negative, -factor[owner, blocks.col], 1.0)
        diagonal = np.where(blocks.row == blocks.col, load[owner, blocks.row] * inverse_gain, 0.0)
        seen = replace(blocks, value=magnitude * drives + diagonal)
        carried = np.where(negative, magnitude * second[owner, blocks.col], 0.0)
        offset = load * spread.offset - np.bincount(rows, carried, count * n).reshape(count, n)
        load = np.where(inside, load, 1.0)
    inverted = None
    if chip.inverter.gain_bandwidth is not None and chip.amplifier.gain_bandwidth is not None:
        if not exact:
            minus = np.zeros((count, n, n))
            minus[owner[negative], blocks.row[negative], blocks.col[negative]] = magnitude[negative]
        inverted = minus * factor[:, None, :]
    return Loop(seen, load, blocks.offsets, passed, offset * inside, inverted, wire_error)


def thinned(blocks: Blocks, cells: Blocks) -> Blocks:
    """Drop couplings that float32, in which shots are emulated, cannot tell from none.

    Exactly eliminated wires couple all lines, most of them by nothing: of a five-point block of 128 rows a tenth of
    the entries is left, in a band of a quarter of the width. What is dropped of a row adds up to less than
    n·2⁻³⁰ √(k_ii k_jj), 2⁻²³ of the diagonal for 128 rows.

    Args:
        blocks: of the loop. cells: the programmed ones, whose entries stay: they have noise.
    """
    diagonal = np.zeros((blocks.count, blocks.size))
    owner = blocks.owner
    here = blocks.row == blocks.col
    diagonal[owner[here], blocks.row[here]] = np.sqrt(np.abs(blocks.value[here]))
    size = diagonal[owner, blocks.row] * diagonal[owner, blocks.col]
    keep = here | (np.abs(blocks.value) > NEGLIGIBLE * size)
    programmed = np.zeros((blocks.count, blocks.size, blocks.size), bool)
    programmed[cells.owner, cells.row, cells.col] = True
    keep |= programmed[owner, blocks.row, blocks.col]
    offsets = np.concatenate(([0], np.cumsum(keep)))[blocks.offsets].astype(np.int64)
    return replace(blocks, offsets=offsets, row=blocks.row[keep], col=blocks.col[keep], value=blocks.value[keep])


def _full(blocks: Blocks, matrices: Array) -> Blocks:
    """Return full blocks of the same sizes from an array of shape (K, n, n)."""
    inside = np.arange(blocks.size) < blocks.sizes[:, None]
    tile, row, col = np.nonzero(inside[:, :, None] & inside[:, None, :])
    sizes = blocks.sizes.astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(sizes**2))).astype(np.int64)
    return Blocks(blocks.sizes, offsets, row.astype(np.int32), col.astype(np.int32), matrices[tile, row, col],
                  blocks.tiles, blocks.size)

"""The open loop: what transimpedance amplifiers read of an array.

Columns of the positive array are driven by v, those of the negative one by −v; amplifier i holds row node i at u_i and
feeds back through a conductance g. Kirchhoff's law, u_i = V_i − o_i/A, gives

    [(1 + 1/A) g + D/A] o = −G v + (D + g) V,

o the outputs, D the total conductance at the row nodes. The host takes −g o for the product. With wires G and D are
replaced by what `analogpde.tile.wires` makes of them; g is one fully-on cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.tile.lines import LARGEST_OUTPUT, Drawing, code
from analogpde.tile.loop import LARGEST_EXACT, PARTS
from analogpde.tile.noise import Purpose, normal, stream
from analogpde.tile.wires import approximate, eliminate, error_estimate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Arrays:
    """P arrays as their amplifiers see them, in units of the entries.

    Args:
        offsets, row, col: entries by array, indices into its lines. value: what the host gets of them.
        passed: what the wires leave of each programmed cell; 0 where there is none, shape of value.
        source: programmed entry of each value, −1 where there is none.
        offset: of the outputs, V in units of the entries, shape (P, lines read).
        wire_error: relative error to be expected of approximated wires.
    """

    offsets: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    value: Array
    passed: Array
    source: NDArray[np.int64]
    offset: Array
    wire_error: float


_ROOM = 1 << 19  # entries of full arrays worked on at a time


def read_out(
    offsets: NDArray[np.int64], row: NDArray[np.int64], col: NDArray[np.int64], value: Array, feedback: Array,
    heights: NDArray[np.int64], widths: NDArray[np.int64], chip: Chip, offset: Array,
) -> Arrays:
    """Read programmed arrays through wires and amplifiers.

    Args:
        offsets, row, col, value: programmed cells, by array.
        feedback: conductance of a fully-on cell in units of the entries, shape (P,): the feedback of the amplifiers.
        heights, widths: lines read and driven, shape (P,).
        chip: whose wires and amplifiers. offset: of the amplifiers, V, shape (P, lines read).
    """
    count, m, n = len(feedback), offset.shape[1], int(widths.max(initial=0))
    step = count if chip.wire.ideal else max(1, _ROOM // max(1, m * n))
    parts = []
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        cells = slice(offsets[start], offsets[part.stop])
        found = _read_out(offsets[start : part.stop + 1] - offsets[start], row[cells], col[cells], value[cells],
                          feedback[part], heights[part], widths[part], n, chip, offset[part])
        parts.append(replace(found, source=np.where(found.source < 0, -1, found.source + offsets[start])))
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    joined = {name: np.concatenate([getattr(part, name) for part in parts])
              for name in ("row", "col", "value", "passed", "source", "offset")}
    return Arrays(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), **joined,
                  wire_error=max(part.wire_error for part in parts))


def _read_out(
    offsets: NDArray[np.int64], row: NDArray[np.int64], col: NDArray[np.int64], value: Array, feedback: Array,
    heights: NDArray[np.int64], widths: NDArray[np.int64], n: int, chip: Chip, offset: Array,
) -> Arrays:
    """Read some arrays; n is the width of the widest of all."""
    count, m = len(feedback), offset.shape[1]
    owner = np.repeat(np.arange(count), np.diff(offsets))
    unit = chip.cell.conductance_max / feedback
    inverse_gain = 0.0 if chip.amplifier.gain is None else 1.0 / chip.amplifier.gain
    negative = value < 0
    wired = not chip.wire.ideal
    exact = wired and (chip.wire.elimination == "exact"
                       or (chip.wire.elimination == "auto" and max(m, n) <= LARGEST_EXACT))
    source, passed, wire_error = np.arange(len(value)), np.ones(len(value)), 0.0
    if wired:
        arrays = np.zeros((2, count, m, n))
        arrays[negative.astype(int), owner, row, col] = np.abs(value)
        resistance = (chip.wire.row or 0.0) * unit, (chip.wire.column or 0.0) * unit
        if exact:
            (plus, across), (minus, other) = (eliminate(array, *resistance) for array in arrays)
            load = across + other
        else:
            (plus, change), (minus, other_change) = (approximate(array, *resistance) for array in arrays)
            wire_error = float(error_estimate(np.maximum(change, other_change)).max(initial=0.0))
        through = np.where(negative, minus[owner, row, col], plus[owner, row, col])
        passed = np.divide(through, np.abs(value), out=np.ones(len(value)), where=value != 0)
    if exact:
        index = np.arange(m)
        lift = load * inverse_gain
        lift[:, index, index] += (feedback * (1.0 + inverse_gain))[:, None]
        push = np.einsum("pij,pj->pi", load, offset) + feedback[:, None] * offset
        seen = np.linalg.solve(lift, np.concatenate((plus - minus, push[:, :, None]), axis=2)) * feedback[:, None, None]
        inside = (index < heights[:, None])[:, :, None] & (np.arange(n) < widths[:, None])[:, None, :]
        number = np.full((count, m, n), -1)
        number[owner, row, col] = source
        kept = np.zeros((count, m, n))
        kept[owner, row, col] = passed
        _, row, col = np.nonzero(inside)
        offsets = np.concatenate(([0], np.cumsum(heights * widths))).astype(np.int64)
        return Arrays(offsets, row, col, seen[:, :, :n][inside], kept[inside], number[inside], -seen[:, :, n],
                      wire_error)
    magnitude = np.abs(value) * passed
    load = np.bincount(owner * m + row, magnitude, count * m).reshape(count, m)
    share = feedback[:, None] / (feedback[:, None] * (1.0 + inverse_gain) + load * inverse_gain)
    passed = passed * share[owner, row]
    return Arrays(offsets, row, col, value * passed, passed, source, -share * (load + feedback[:, None]) * offset,
                  wire_error)


@dataclass(frozen=True)
class OpenLines:
    """What the lines of P arrays do besides rounding, for either direction of driving.

    Args:
        full_scale: of the drivers, V, shape (P,). feedback: see `read_out`.
        offset: of the outputs, V in units of the entries, shape (P, lines). dac, adc: offsets of the converters,
            fractions of the full scale, shape (P, lines).
        name: of the bank, which keys the noise.
        reach: calibrated full scale of the ADCs for columns driven and for rows driven, in units of the entries for
            inputs of a full scale, shape (2, P); None: as the converter says.
    """

    full_scale: Array
    feedback: Array
    offset: Array
    dac: Array
    adc: Array
    name: str
    reach: Array | None = None

    @staticmethod
    def draw(
        keys: NDArray[np.int64], lines: int, chip: Chip, *, seed: int, name: str,
    ) -> tuple[Array, Array, Array]:
        """Draw offsets of amplifiers (V) and of converters (fractions), shape (P, lines) each."""
        deviations = (chip.amplifier.offset, chip.dac.offset, chip.adc.offset)
        count = len(keys)
        numbers = np.zeros((count, len(deviations), lines))
        if any(deviations):
            starts = np.arange(count + 1, dtype=np.int64) * len(deviations) * lines
            numbers = normal(starts, seed=seed, word=stream(Purpose.PROGRAMMING, name + PARTS), tiles=keys,
                             event=0).reshape(numbers.shape)
        first, second, third = (numbers[:, k] * (deviation or 0.0) for k, deviation in enumerate(deviations))
        return first, second, third

    @staticmethod
    def full_scales(arrays: Arrays, feedback: Array, chip: Chip) -> Array:
        """Return the full scale of each array's drivers: no input drives an output beyond the limit, either way."""
        if chip.dac.range is not None:
            return np.full(len(feedback), chip.dac.range)
        count = len(feedback)
        owner = np.repeat(np.arange(count), np.diff(arrays.offsets))
        sums = []
        for line in (arrays.row, arrays.col):
            width = int(line.max(initial=0)) + 1
            total = np.bincount(owner * width + line, np.abs(arrays.value), count * width)
            sums.append(total.reshape(count, width).max(axis=1, initial=0.0))
        gain = np.maximum(np.maximum(*sums) / feedback, 1e-30)
        bounds = [v for v in (chip.amplifier.swing, chip.adc.range) if v is not None]
        return np.asarray(2.0 ** np.floor(np.log2((min(bounds) if bounds else LARGEST_OUTPUT) / gain)))

    def convert(self, chip: Chip, share: Array, part: Array, driven: NDArray[np.bool_], drawing: Drawing) -> Array:
        """Return what the drivers make of inputs, in full scales, shape (P, lines driven)."""
        width = share.shape[1]
        volts = code(chip.dac, share * part[:, None]) + self.dac[:, :width]
        return np.where(driven, volts + drawing.noise(chip.dac.noise, "~dac", width), 0.0)

    def read(
        self, chip: Chip, product: Array, part: Array, reads: NDArray[np.bool_], drawing: Drawing,
        transposed: bool = False,
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Return what the host gets of the products (per full scale), and which arrays clipped.

        Args:
            product: in units of the entries, for inputs in full scales, shape (P, lines read).
            part: of the full scale that the host used, shape (P,).
            transposed: whether rows were driven.
        """
        height = product.shape[1]
        scale = (self.full_scale / self.feedback)[:, None]
        volts = product * scale + self.offset[:, :height] / self.feedback[:, None]
        clipped = np.zeros(len(volts), bool)
        if chip.amplifier.swing is not None:  # an amplifier at its end holds its row no longer; the others do
            clipped |= (reads & (np.abs(volts) > chip.amplifier.swing)).any(axis=1)
            volts = np.clip(volts, -chip.amplifier.swing, chip.amplifier.swing)
        reach = np.full(len(volts), chip.adc.range or 0.0)
        fixed = chip.adc.range is not None or self.reach is not None
        if self.reach is not None:
            reach = self.reach[int(transposed)] * scale[:, 0]
        elif chip.adc.range is None:
            reach = np.where(reads, np.abs(volts), 0.0).max(axis=1, initial=0.0)
        reach = np.where(reach > 0, reach, 1.0)[:, None]
        seen = volts / reach + self.adc[:, :height] + drawing.noise(chip.adc.noise, "~adc", height)
        if fixed:
            clipped |= (reads & (np.abs(seen) > 1.0)).any(axis=1)
            seen = np.clip(seen, -1.0, 1.0)
        return code(chip.adc, seen) * reach / (scale * part[:, None]), clipped

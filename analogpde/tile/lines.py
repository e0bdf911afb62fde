"""The lines of a tile: from the host's numbers to volts, through the loop, and back.

A shot, in the order of the circuit: the host scales the input to its largest entry, DACs round it and add offset and
noise, the loop settles with the offsets of its amplifiers, outputs end at the swing, are read after the settling time,
and ADCs clip, add offset and noise, and round. What clipped is repeated with half the input (bound management).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.chip.converter import Converter
from analogpde.tile.blocks import Blocks
from analogpde.tile.factors import Factors
from analogpde.tile.line_kernels import drive, over_swing, read_back
from analogpde.tile.loop import Loop, Spread
from analogpde.tile.noise import Purpose, normal, stream
from analogpde.tile.saturation import saturate

Array = NDArray[np.float64]
LARGEST_OUTPUT = 1.0  # V, that a full-scale input may drive where neither a swing nor an ADC's range says so
_NONE, _NO_SAMPLING = np.empty((0, 0)), np.empty((0, 0, 0), np.float32)
# settle(right-hand sides, which tiles, what keys the noise): the answers, in place
Settle = Callable[[Array, NDArray[np.bool_], int], None]


@dataclass(frozen=True)
class Lines:
    """What the lines of K tiles do besides rounding.

    Args:
        full_scale: of the DACs, V, shape (K,).
        offset: input-referred offset of the loop, V in units of the scaled block, shape (K, n).
        dac, adc: offsets of the converters, fractions of the full scale, shape (K, n).
        sampling: what a reading before the loop has settled makes of its answer, shape (K, n, n), or None.
        matrices, load: of the loop, kept only if amplifiers have a swing.
    """

    full_scale: Array
    offset: Array
    dac: Array
    adc: Array
    sampling: NDArray[np.float32] | None
    matrices: Blocks | None
    load: Array | None

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        arrays = (self.offset, self.dac, self.adc, self.sampling, self.load,
                  None if self.matrices is None else self.matrices.value)
        return sum(a.nbytes for a in arrays if a is not None)

    def select(self, which: NDArray[np.int64]) -> Lines:
        """Return the lines of the named tiles; a tile may be named more than once."""
        return Lines(self.full_scale[which], self.offset[which], self.dac[which], self.adc[which],
                     None if self.sampling is None else self.sampling[which],
                     None if self.matrices is None else self.matrices.select(which),
                     None if self.load is None else self.load[which])

    @staticmethod
    def of(loop: Loop, factors: Factors, spread: Spread, chip: Chip, sampled: Array | None) -> Lines:
        """Return the lines of programmed tiles.

        Args:
            loop, factors, spread: of the same tiles, all of which must be regular.
            sampled: from `analogpde.tile.settling.sampling`.
        """
        if chip.dac.range is None:
            bounds = [v for v in (chip.amplifier.swing, chip.adc.range) if v is not None]
            limit = min(bounds) if bounds else LARGEST_OUTPUT
            full_scale = 2.0 ** np.floor(np.log2(limit / largest_gain(factors)))
        else:
            full_scale = np.full(loop.blocks.count, chip.dac.range)
        swings = chip.amplifier.swing is not None
        return Lines(full_scale, loop.offset, spread.dac, spread.adc,
                     None if sampled is None else sampled.astype(np.float32), loop.blocks if swings else None,
                     loop.load if swings else None)

    @staticmethod
    def gather(parts: list[tuple[NDArray[np.int64], Lines]]) -> Lines:
        """Put the lines of parts of a batch together.

        Args:
            parts: which tiles of the batch each part holds, and their lines; together all, each once.
        """
        back = np.argsort(np.concatenate([which for which, _ in parts]))
        lines = [part for _, part in parts]

        def joined(name: str) -> NDArray[np.floating] | None:
            arrays = [getattr(part, name) for part in lines]
            return None if arrays[0] is None else np.concatenate(arrays)[back]

        blocks = None if lines[0].matrices is None else Blocks.joined([p.matrices for p in lines if p.matrices])
        arrays = {name: joined(name) for name in ("full_scale", "offset", "dac", "adc", "sampling", "load")}
        return Lines(matrices=None if blocks is None else blocks.select(back), **arrays)  # type: ignore[arg-type]


def largest_gain(factors: Factors) -> Array:
    """Return ‖Ĝ⁻¹‖_∞, the largest output for inputs within ±1, shape (K,)."""
    sums = np.abs(factors.groups.inverse()).sum(axis=2, dtype=np.float64)
    return np.maximum(sums.max(axis=1, initial=0.0), 1e-30)


@dataclass(frozen=True)
class Drawing:
    """What keys the noise of the converters: seed, name of the bank, tiles (ids and lines in use), event."""

    seed: int
    name: str
    tiles: NDArray[np.int64]
    sizes: NDArray[np.int32]
    event: int

    def noise(self, deviation: float | None, what: str, n: int) -> Array:
        """Draw one number a line in use, shape (K, n)."""
        out = np.zeros((len(self.sizes), n))
        if not deviation:
            return out
        sizes = np.minimum(self.sizes, n).astype(np.int64)
        offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        out[np.arange(n) < sizes[:, None]] = deviation * normal(
            offsets, seed=self.seed, word=stream(Purpose.READ, self.name + what), tiles=self.tiles, event=self.event)
        return out


def code(converter: Converter, parts: Array) -> Array:
    """Round fractions of the full scale to codes, which end at the full scale."""
    if not converter.codes:
        return parts
    return np.clip(np.rint(parts * converter.codes), -converter.codes, converter.codes) / converter.codes


def shoot(
    lines: Lines, chip: Chip, x: Array, settle: Settle, drawing: Drawing, *, scale: Array, sign: Array,
    driven: NDArray[np.int32], read: NDArray[np.int32], transposed: bool = False,
) -> NDArray[np.int64]:
    """One shot of every tile, in place on x (K, n); see `analogpde.tile.inv.InvBank.shoot`.

    Args:
        lines, chip: of the tiles. x: right-hand sides; on return the answers on the lines that are read.
        settle: the loop. drawing: keys the noise.
        scale, sign: of the blocks. driven, read: how many lines of each tile, the first ones.
        transposed: drive the columns and read the rows.

    Returns:
        Of each tile how many times the shot was repeated, shape (K,).
    """
    count, n = x.shape
    volts = np.empty((count, n))
    largest, part, repeats = np.empty(count), np.empty(count), np.zeros(count, np.int64)
    pending, over = np.empty(count, bool), np.zeros(count, bool)
    sampling = _NO_SAMPLING if lines.sampling is None else lines.sampling
    swing = chip.amplifier.swing

    def noise(deviation: float | None, what: str) -> Array:
        return drawing.noise(deviation, f"~{repeat}{what}", n) if deviation else _NONE

    for repeat in range(chip.bound_repeats + 1):
        if not drive(x, scale, driven, read, chip.dac.codes, lines.dac, noise(chip.dac.noise, "~dac"),
                     lines.full_scale, lines.offset, sampling, transposed, repeat, largest, part, pending, volts):
            break
        settle(volts, pending, repeat)
        if swing is not None and lines.matrices is not None and lines.load is not None and over_swing(
                volts, swing, pending, over):
            which = np.flatnonzero(over)
            matrices = lines.matrices.select(which).dense()
            if transposed:
                matrices = np.swapaxes(matrices, 1, 2)
            volts[which], _ = saturate(matrices, lines.load[which], volts[which], swing)
        if not read_back(volts, scale, sign, read, chip.adc.codes, chip.adc.range or 0.0, lines.adc,
                         noise(chip.adc.noise, "~adc"), lines.full_scale, sampling, transposed,
                         chip.dac.least_part if repeat < chip.bound_repeats else np.inf, over, largest, part, pending,
                         repeats, x):
            break
    return repeats

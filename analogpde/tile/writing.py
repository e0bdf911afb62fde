"""The write–verify loop at work: how many pulses the cells of tiles take.

Each cell goes through the loop by itself: a pulse, a read, until the target is met or the cell is given up. What it is
off by afterwards is drawn by the programming error, for a cell relaxes between the loop's end and its use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.compiled import compiled
from analogpde.tile.noise import Purpose, read_normal, stream

PULSE = "~pulse"  # behind the noise's name: a stream for each pulse of the loop
STUCK = np.inf  # target of a cell that does not move


@compiled
def _pulse(distance, cell, step, spread, tolerance, draws, count):  # type: ignore[no-untyped-def]
    """Give every cell under way a pulse; move those that need another to the front and return how many they are."""
    left = 0
    for i in range(distance.size):
        away = distance[i]
        away -= min(max(away, -step), step) + spread * draws[i]
        count[cell[i]] += 1
        if abs(away) > tolerance:
            distance[left], cell[left] = away, cell[i]
            left += 1
    return left


@compiled
def _slowest(count, line, most):  # type: ignore[no-untyped-def]
    """Fill `most` with the largest count of each line."""
    for i in range(count.size):
        most[line[i]] = max(most[line[i]], count[i])


@compiled
def _cells(offsets, row, level, trim, places, trimmed, slices, lines, target, line, ends):  # type: ignore[no-untyped-def]
    """List the cells that hold levels, tile by tile: their place in the window and their line; return their number."""
    n, base = 0, places.size
    for k in range(ends.size - 1):
        for e in range(offsets[k], offsets[k + 1]):
            rest, place = level[e], base ** (slices - 1)
            for _ in range(slices):
                digit = min(rest // place, base - 1)
                rest -= digit * place
                place = max(place // base, 1)
                if digit > 0:
                    target[n], line[n] = places[digit], k * lines + row[e]
                    n += 1
            if trim[e] > 0:
                target[n], line[n] = trimmed[trim[e]], k * lines + row[e]
                n += 1
        ends[k + 1] = n
    return n


@dataclass(frozen=True)
class Written:
    """What writing took.

    Args:
        cells: that were written. pulses: of all of them.
        in_turn: pulses one after the other: of each row of a tile the slowest cell's, added up over rows and tiles.
    """

    cells: int = 0
    pulses: int = 0
    in_turn: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.cells + other.cells, self.pulses + other.pulses, self.in_turn + other.in_turn)


def write(
    chip: Chip, target: NDArray[np.float64], line: NDArray[np.int64], ends: NDArray[np.int64],
    tiles: NDArray[np.int64], *, seed: int, name: str, event: int, tolerance: float | None = None,
) -> Written:
    """Write cells.

    Args:
        chip: whose loop.
        target: place of each cell in the window, 0 its lowest conductance and 1 its largest; STUCK if it does not move.
        line: row of each cell, numbered over all tiles. ends: cells of tile k are ends[k]…ends[k+1]−1, shape (K+1,).
        tiles, seed, name, event: key of the draws.
        tolerance: fraction of the largest conductance; None: the chip's.
    """
    if not len(target):
        return Written()
    w = chip.writing
    tolerance = chip.verify_tolerance if tolerance is None else tolerance
    count = np.zeros(len(target), np.int64)
    if w.step is None or tolerance == 0.0:
        count[:] = 1
    else:
        distance, cell = target * chip.cell.window, np.arange(len(target))
        for pulse in range(w.limit):
            offsets = np.searchsorted(cell, ends)
            word = stream(Purpose.PROGRAMMING, f"{name}{PULSE}{pulse}")
            draws = read_normal(offsets, seed=seed, word=word, tiles=tiles, event=event)
            left = _pulse(distance, cell, w.step, w.spread or 0.0, tolerance, draws, count)
            distance, cell = distance[:left], cell[:left]
            if not left:
                break
    most = np.zeros(int(line.max()) + 1, np.int64)
    _slowest(count, line, most)
    return Written(len(target), int(count.sum()), int(most.sum()))


def write_levels(
    chip: Chip, offsets: NDArray[np.int64], row: NDArray[np.integer], level: NDArray[np.int64],
    trim: NDArray[np.int64], base: int, slices: int, lines: int, tiles: NDArray[np.int64], *, seed: int, name: str,
    event: int, tolerance: float | None = None,
) -> Written:
    """Write levels digit by digit; a digit of zero is a cell that is off.

    Args:
        offsets, row: entries by tile and their rows; lines: rows of a tile.
        level, trim: of each entry, in steps of the lowest slice and of its trim cell. base, slices: of the digits.
        chip, tiles, seed, name, event, tolerance: see `write`.
    """
    most = len(level) * slices + int(np.count_nonzero(trim))
    target, line = np.empty(most), np.empty(most, np.int64)
    ends = np.zeros(len(tiles) + 1, np.int64)
    places = chip.cell.places
    if places is None or len(places) != base:
        places = np.arange(base) / (base - 1)
    trimmed = places if chip.cell.places is not None else np.arange(base) / base
    number = _cells(offsets, row, level, trim, places, trimmed, slices, lines, target, line, ends)
    return write(chip, target[:number], line[:number], ends, tiles, seed=seed, name=name, event=event,
                 tolerance=tolerance)

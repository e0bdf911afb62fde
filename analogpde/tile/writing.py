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
from analogpde.tile.kernels import fill_read
from analogpde.tile.noise import Purpose, stream

PULSE = "~pulse"  # behind the noise's name: a stream for each pulse of the loop
STUCK = np.inf  # target of a cell that does not move


@compiled
def _pulse(target, line, ends, window, step, spread, tolerance, seed, streams, tiles, event, most):  # type: ignore[no-untyped-def]
    """Give the cells of each tile pulses until none needs another; return how many that took.

    `streams` has the word of each pulse, as many as a cell gets at most; `most` becomes the largest count of each line.
    """
    longest = 0
    for k in range(tiles.size):
        longest = max(longest, ends[k + 1] - ends[k])
    distance, cell, count = np.empty(longest), np.empty(longest, np.int64), np.empty(longest, np.int64)
    draws, words = np.empty(longest, np.float32), np.empty(longest // 2 + 4, np.uint32)
    total = 0
    for k in range(tiles.size):
        begin, left = ends[k], ends[k + 1] - ends[k]
        for i in range(left):
            distance[i], cell[i], count[i] = target[begin + i] * window, i, streams.size
        for pulse in range(streams.size):
            if left == 0:
                break
            fill_read(draws, words, left, seed, streams[pulse], tiles[k], event)
            pending = 0
            for i in range(left):  # those that need another move to the front
                away = distance[i]
                away -= min(max(away, -step), step) + spread * draws[i]
                mine = cell[i]
                more = abs(away) > tolerance
                count[mine] = streams.size if more else pulse + 1
                distance[pending], cell[pending] = away, mine
                pending += more
            left = pending
        for i in range(ends[k + 1] - begin):
            total += count[i]
            most[line[begin + i]] = max(most[line[begin + i]], count[i])
    return total


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
    most = np.zeros(int(line.max()) + 1, np.int64)
    if w.step is None or tolerance == 0.0:
        most[line] = 1
        return Written(len(target), len(target), int(most.sum()))
    streams = np.array([stream(Purpose.PROGRAMMING, f"{name}{PULSE}{pulse}") for pulse in range(w.limit)], np.uint64)
    pulses: int = _pulse(target, line, ends, chip.cell.window, w.step, w.spread or 0.0, tolerance, np.uint64(seed),
                         streams, tiles, np.uint64(event & 0xFFFFFFFF), most)
    return Written(len(target), pulses, int(most.sum()))


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

"""Rounding to levels that are not evenly spaced.

An entry is a sum of slices of weight 1, 2^−bits, …, each at one of the cell's levels; what such sums can be is listed
and an entry takes the nearest one. All else is as for even levels: each row's |error| goes to its diagonal, which is
rounded up with the help of a trim cell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.errors import InvalidInput

MOST_BITS = 18  # of an entry with its trim cell: sums are listed
_LADDER = 24  # as in `analogpde.tile.programming`


def sums(places: NDArray[np.float64], slices: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what slices at all levels add up to, ascending, and their digits as one number, the top slice first.

    Args:
        places: of the levels in the window, 0 … 1. slices: of an entry; the top one has the weight 1.

    Raises:
        InvalidInput: too many slices to list.
    """
    base = len(places)
    if slices * np.log2(base) > MOST_BITS:
        raise InvalidInput("slices", slices - 1, f"{int(MOST_BITS / np.log2(base)) - 1} or fewer of {base} levels "
                           "that are not evenly spaced", "Use fewer slices, or level_spacing linear.")
    total = places
    for s in range(1, slices):
        total = (total[:, None] + places * float(base) ** -s).ravel()
    order = np.argsort(total, kind="stable")
    return total[order], order.astype(np.int64)


def nearest(table: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the index of the nearest entry of an ascending table, the lower of two."""
    return np.searchsorted(0.5 * (table[1:] + table[:-1]), x)


@compiled
def _find(table, x):  # type: ignore[no-untyped-def]
    """Return the index of the first entry that is at least x, or the last one."""
    low, high = 0, table.size - 1
    while low < high:
        middle = (low + high) // 2
        if table[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _nearest(table, x):  # type: ignore[no-untyped-def]
    at = _find(table, x)
    if at > 0 and x - table[at - 1] <= table[at] - x:
        return at - 1
    return at


@compiled
def _cost(value, row, col, size, largest, table, error, limit):  # type: ignore[no-untyped-def]
    """Return mean and maximum over the rows of what rounding to a window is off by; infinity beyond a limit."""
    error[:size] = 0.0
    total, most = 0.0, limit * size
    for e in range(value.size):
        if row[e] != col[e]:
            x = abs(value[e]) / largest
            lost = abs(x - table[_nearest(table, x)]) * largest
            error[row[e]] += lost
            total += lost
            if total > most:
                return np.inf, np.inf
    peak = 0.0
    for i in range(size):
        peak = max(peak, error[i])
    return total / max(size, 1), peak


@compiled
def choose_largest(offsets, sizes, row, col, value, table, head, roots, shift_factor, noise, extra):  # type: ignore[no-untyped-def]
    """Choose each block's window, the conductance of a fully-on top cell, as `programming._choose_units` does.

    Args:
        table: of the sums. head: largest sum with the trim cell.
    """
    count = sizes.size
    found = np.empty(count)
    error = np.empty(max(1, sizes.max() if count else 0))
    trial = np.empty(_LADDER + 32)
    top = table[-1]
    for k in range(count):
        begin, end = offsets[k], offsets[k + 1]
        mine = (value[begin:end], row[begin:end], col[begin:end], sizes[k])
        high, low = 0.0, np.inf
        for e in range(begin, end):
            magnitude = abs(value[e])
            if row[e] != col[e] and magnitude > 1e-12:
                high, low = max(high, magnitude), min(low, magnitude)
        root = roots[k]
        lowest = max((1.0 + extra[k]) / head, high / top)
        n = 0
        if high > 0.0:
            for level in range(1, min(17, table.size)):
                for magnitude in (high, low):
                    if table[level] > 0.0 and magnitude / table[level] >= lowest:
                        trial[n] = magnitude / table[level]
                        n += 1
        for c in range(_LADDER):
            trial[n] = lowest * 2.5 ** (c / (_LADDER - 1))
            n += 1
        best, chosen, window = np.inf, 0.0, 0.0
        for c in range(n):
            window = trial[c]
            shift, spread = shift_factor * window * top * root, noise * window * top * root
            mean, peak = _cost(*mine, window, table, error, best - spread)
            if 1.0 + peak + shift + extra[k] <= head * window and mean + spread < best:
                best, chosen = mean + spread, window
        while chosen == 0.0:  # dense rows of many small entries: widen the window until the diagonal fits
            window *= 1.25
            mean, peak = _cost(*mine, window, table, error, np.inf)
            if 1.0 + peak + shift_factor * window * top * root + extra[k] <= head * window:
                chosen = window
        found[k] = chosen
    return found


@compiled
def round_blocks(offsets, row, col, value, largest, alpha, table, fine, error, place, intended):  # type: ignore[no-untyped-def]
    """Round the blocks as `programming._round` does: `place`: indices of `table`, of `fine` on diagonals."""
    for k in range(largest.size):
        window = largest[k]
        error[:] = 0.0
        for e in range(offsets[k], offsets[k + 1]):
            if row[e] != col[e]:
                place[e] = _nearest(table, abs(value[e]) / window)
                intended[e] = np.sign(value[e]) * window * table[place[e]]
                error[row[e]] += abs(value[e] - intended[e])
        for e in range(offsets[k], offsets[k + 1]):
            if row[e] == col[e]:
                place[e] = _find(fine, (abs(value[e]) + error[row[e]] + alpha[k]) / window - 1e-12)
                intended[e] = np.sign(value[e]) * window * fine[place[e]]

"""Wires of a crossbar: what its terminals see of the cells behind resistive rows and columns.

A passive linear network: with voltages v at the column drivers and u at the row amplifiers the currents out of the
rows are Gv v − Gu u. Gv takes the place of the conductances, Gu of their row sums; Gu is symmetric and Gu 1 = Gv 1.
Columns are driven before row 0, rows are sensed before column 0. All conductances and resistances may be in any units
whose product is one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# The a-priori estimate of the approximation's error, LARGEST_FACTOR·e², e what the wires change. Measured on arrays of
# 64 to 256 while e is at most VALID: 0.12 (five-point stencil), 0.22 (dense), 0.26 (three diagonals). For cells that
# share no wire, g/(1 + a + c) against g/((1 + a)(1 + c)), it is |g a c| |g|/|g (a + c)|²: along a diagonal, where a = c
# grows from 0, sqrt(1/5)·3/4 = 0.335 for equal cells, 0.366 for uniformly distributed ones.
LARGEST_FACTOR = 0.37
VALID = 0.3
_ROOM = 1 << 23  # numbers of the largest work array


def eliminate(conductance: Array, row: Array, column: Array) -> tuple[Array, Array]:
    """Eliminate the nodes of the wires exactly.

    Args:
        conductance: of the cells, shape (K, m, n); a cell that is off is zero.
        row, column: resistance of a segment of each tile, shape (K,).

    Returns:
        Gv, shape (K, m, n), and Gu, shape (K, m, m).
    """
    count, m, n = conductance.shape
    through, across = np.empty(conductance.shape), np.empty((count, m, m))
    if not count:
        return through, across
    cells = np.count_nonzero(conductance, axis=(1, 2))
    # flops of the dense factorisation E³/3 against about 6 m n³ of the march
    few = cells.astype(float) ** 3 / 3 <= 6.0 * m * n**3
    order = np.argsort(cells, kind="stable")
    for method, chosen in ((_by_cells, order[few[order]]), (_march, order[~few[order]])):
        step = max(1, _ROOM // (max(1, int(cells[chosen].max(initial=0))) ** 2 if method is _by_cells else 8 * n * n))
        for start in range(0, len(chosen), step):
            part = chosen[start: start + step]
            through[part], across[part] = method(conductance[part], row[part], column[part])
    return through, across


def _by_cells(conductance: Array, row: Array, column: Array) -> tuple[Array, Array]:
    """Few cells: the currents q of the cells are the unknowns, (1/g + r_row K + r_col K) q = v − u.

    K couples the cells of one line by the segments that their currents share. Scaled by sqrt(g) on both sides the
    matrix is symmetric, at least the identity, and cells that are off drop out.
    """
    count, m, n = conductance.shape
    tile, i, j = np.nonzero(conductance)
    cells = np.bincount(tile, minlength=count)
    place = np.arange(len(tile)) - np.repeat(np.cumsum(cells) - cells, cells)
    most = int(cells.max(initial=0))
    rows, cols, root = np.zeros((count, most), np.int64), np.zeros((count, most), np.int64), np.zeros((count, most))
    rows[tile, place], cols[tile, place], root[tile, place] = i, j, np.sqrt(conductance[tile, i, j])
    a, b = rows[:, :, None], rows[:, None, :]
    c, d = cols[:, :, None], cols[:, None, :]
    matrix = np.where(c == d, column[:, None, None] * (np.minimum(a, b) + 1.0), 0.0)
    matrix += np.where(a == b, row[:, None, None] * (np.minimum(c, d) + 1.0), 0.0)
    matrix *= root[:, :, None] * root[:, None, :]
    matrix[:, np.arange(most), np.arange(most)] += 1.0
    ports = np.zeros((count, most, n + m))
    tiles, cell = np.arange(count)[:, None], np.arange(most)
    ports[tiles, cell, cols] = root
    ports[tiles, cell, n + rows] = root
    currents = np.linalg.solve(matrix, ports)
    answer = np.swapaxes(ports[:, :, n:], 1, 2) @ currents
    return answer[:, :, :n], answer[:, :, n:]


def _pivots(g: Array, resistance: Array) -> tuple[Array, Array]:
    """Eliminate the wire of each row with its cells to ground from either end: a tridiagonal matrix M.

    Args:
        g: conductances of the cells, shape (K, m, n). resistance: of a segment, shape (K,); zero is taken for 1.

    Returns:
        The diagonal of M⁻¹, and logarithms f by which (M⁻¹)_jk = (M⁻¹)_kk exp(f_k − f_j) for j < k, shape (K, m, n).
    """
    wire = (1.0 / np.where(resistance > 0, resistance, 1.0))[:, None]
    n = g.shape[2]
    diagonal = 2.0 * wire[:, :, None] + g
    diagonal[:, :, -1] -= wire
    left, right = diagonal.copy(), diagonal.copy()
    for j in range(1, n):
        left[:, :, j] -= wire**2 / left[:, :, j - 1]
        right[:, :, n - 1 - j] -= wire**2 / right[:, :, n - j]
    fall = np.zeros(g.shape)
    np.cumsum(np.log(wire[:, :, None] / left[:, :, :-1]), axis=2, out=fall[:, :, 1:])
    return 1.0 / (left + right - diagonal), fall


def _row_admittance(g: Array, wired: NDArray[np.bool_], inverse: Array, fall: Array, upper: Array) -> Array:
    """Return diag(g) − diag(g) M⁻¹ diag(g) of one row of each tile, shape (K, n, n); see `_pivots`."""
    n = g.shape[1]
    decay = fall[:, None, :] - fall[:, :, None]
    np.exp(np.minimum(decay, 0.0, out=decay), out=decay)
    decay *= (inverse * g)[:, None, :] * upper
    decay *= g[:, :, None]
    out = decay + np.swapaxes(decay, 1, 2)
    out *= -wired[:, None, None].astype(float)
    index = np.arange(n)
    out[:, index, index] = g - np.where(wired[:, None], g * inverse * g, 0.0)
    return out


def _march(conductance: Array, row: Array, column: Array) -> tuple[Array, Array]:
    """Many cells: row by row from the far end, the admittance P that the columns see below each row.

    With c the column nodes of row i and c' those of the row above, c = H (c' + r P_u u), H = (1 + r P)⁻¹.
    """
    count, m, n = conductance.shape
    unit = np.eye(n)
    r = column[:, None, None]
    through, across = np.zeros((count, m, n)), np.zeros((count, m, m))
    below = np.zeros((count, n, n))
    inverse, fall = _pivots(conductance, row)
    upper = np.triu(np.ones((n, n)), 1)
    for i in range(m - 1, -1, -1):
        mine = _row_admittance(conductance[:, i], row > 0, inverse[:, i], fall[:, i], upper)
        admittance = mine + below
        h = np.linalg.inv(unit + r * admittance)
        through[:, i] = mine.sum(axis=1)
        across[:, i, i] = through[:, i].sum(axis=1)
        tail = through[:, i:]
        passed = tail @ h
        across[:, i:, i:] -= r * (passed @ np.swapaxes(tail, 1, 2))
        through[:, i:] = passed
        below = admittance @ h
        below = 0.5 * (below + np.swapaxes(below, 1, 2))
    return through, across


def _shared(conductance: Array, axis: int) -> Array:
    """Sum the conductances of a line, each times the segments it shares with the place, in two cumulative sums."""
    return np.cumsum(np.flip(np.cumsum(np.flip(conductance, axis), axis), axis), axis)


def approximate(conductance: Array, row: Array, column: Array) -> tuple[Array, Array]:
    """Return Gv entry by entry, G / ((1 + r_row G K)(1 + r_col K G)), and what the wires change, e = |Gv − G|/|Gv|.

    Args:
        conductance, row, column: as of `eliminate`.

    Returns:
        Gv, shape (K, m, n), and e, shape (K,). The relative error of Gv is 0.1 to 0.37 e² while e is at most `VALID`.
    """
    loaded = 1.0 + row[:, None, None] * _shared(conductance, 2)
    loaded *= 1.0 + column[:, None, None] * _shared(conductance, 1)
    through = conductance / loaded
    size = np.sqrt((through**2).sum(axis=(1, 2)))
    change = np.sqrt(((through - conductance) ** 2).sum(axis=(1, 2)))
    return through, np.divide(change, size, out=np.zeros(len(size)), where=size > 0)


def error_estimate(change: Array) -> Array:
    """Return the relative error to be expected of `approximate` given e; infinite beyond where it was measured."""
    return np.where(change <= VALID, LARGEST_FACTOR * change**2, np.inf)

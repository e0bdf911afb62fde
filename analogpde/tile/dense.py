"""Shots of INV tiles whose wires couple every line to every other, by stored inverses; in one file, for Numba's cache.

Wires leave no zero in what the amplifiers see, and the factors of a full matrix are slower to solve with than its
inverse is to multiply with: 128 lines are 64 kB, read once, against a band of 128 kB. The cells with read noise stay
few.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.tile.factors import Groups
from analogpde.tile.noise import read_normal

MOST_ENTRIES = 1 << 27  # of all inverses of a bank, 512 MB; above it the factors serve
_SWEEPS = 24


def worth_it(factors: Groups) -> bool:
    """Tell whether stored inverses are faster than the factors: nearly full bands, and not too many of them."""
    count, n = factors.rows.shape
    wide = bool(len(factors.width)) and bool((2 * factors.width >= factors.size).all())
    return wide and 0 < count * n * n <= MOST_ENTRIES


@compiled
def _apply(inverse, n, right, out):  # type: ignore[no-untyped-def]
    """out = Ĝ⁻¹ right; row j of `inverse` is what line j contributes."""
    out[:n] = 0.0
    j = 0
    while j + 8 <= n:  # eight lines at a time: fewer trips of the sums through memory
        v0, v1, v2, v3 = right[j], right[j + 1], right[j + 2], right[j + 3]
        v4, v5, v6, v7 = right[j + 4], right[j + 5], right[j + 6], right[j + 7]
        a0, a1, a2, a3 = inverse[j], inverse[j + 1], inverse[j + 2], inverse[j + 3]
        a4, a5, a6, a7 = inverse[j + 4], inverse[j + 5], inverse[j + 6], inverse[j + 7]
        for i in range(n):
            low = (a0[i] * v0 + a1[i] * v1) + (a2[i] * v2 + a3[i] * v3)
            high = (a4[i] * v4 + a5[i] * v5) + (a6[i] * v6 + a7[i] * v7)
            out[i] += low + high
        j += 8
    while j < n:
        v0, a0 = right[j], inverse[j]
        for i in range(n):
            out[i] += a0[i] * v0
        j += 1


@compiled
def _round(vector, codes):  # type: ignore[no-untyped-def]
    """Round in place to codes of its own largest magnitude, as `kernels.round_to_codes`."""
    largest = 0.0
    for i in range(vector.size):
        largest = max(largest, abs(vector[i]))
    if codes > 0 and largest > 0.0:
        step = largest / codes
        for i in range(vector.size):
            vector[i] = np.rint(vector[i] / step) * step


@compiled
def _solve_noisy(inverse, n, row, col, error, first):  # type: ignore[no-untyped-def]
    """Return (1 + Ĝ⁻¹E)⁻¹ first, where sweeps do not converge."""
    matrix = np.zeros((n, n))
    for i in range(n):
        matrix[i, i] = 1.0
    for e in range(error.size):
        for i in range(n):
            matrix[i, col[e]] += inverse[row[e], i] * error[e]
    return np.linalg.solve(matrix, first[:n].astype(np.float64))


@compiled
def _shoot(inverse, sizes, kept, offsets, row, col, deviation, drawn, line_offsets, line_draws, cell_offsets,  # type: ignore[no-untyped-def]
           cell_draws, order, scale, sign, which, dac, adc, x):
    """One shot of every tile of `which`, in place on x (K, n); return how many were solved densely."""
    n_max = x.shape[1]
    b, solution, first = np.zeros(n_max, np.float32), np.zeros(n_max, np.float32), np.zeros(n_max, np.float32)
    right, latest = np.zeros(n_max, np.float32), np.zeros(n_max, np.float32)
    variance = np.zeros(n_max)
    solved = 0
    for k in range(sizes.size):
        if not which[k]:
            continue
        n, begin, end = sizes[k], offsets[k], offsets[k + 1]
        largest = 0.0
        for i in range(n):
            largest = max(largest, abs(x[k, i] * scale[k, i]))
        power = 1.0
        if 0.0 < largest < np.inf:
            power = math.ldexp(1.0, math.frexp(largest)[1] - 1)
        for i in range(n):
            b[i] = x[k, i] * scale[k, i] / power
        _round(b[:n], dac)
        _apply(inverse[k], n, b, first)
        solution[:n] = first[:n]
        if end > begin and not drawn[k]:
            variance[:n] = 0.0
            for e in range(begin, end):
                variance[row[e]] += (deviation[e] * first[col[e]]) ** 2
            for t in range(n):  # draws are those of the places, as with factors
                i = order[k, t]
                right[i] = b[i] - np.sqrt(variance[i]) * line_draws[line_offsets[k] + t]
            _apply(inverse[k], n, right, solution)
        elif end > begin:
            error = cell_draws[cell_offsets[k]: cell_offsets[k + 1]] * deviation[begin:end]
            previous, before, step = np.inf, 0.0, 0
            while True:
                right[:n] = b[:n]
                for e in range(end - begin):
                    right[row[begin + e]] -= error[e] * solution[col[begin + e]]
                _apply(inverse[k], n, right, latest)
                change = size = 0.0
                for i in range(n):
                    change = max(change, abs(latest[i] - solution[i]))
                    size = max(size, abs(latest[i]))
                    solution[i] = latest[i]
                step += 1
                now = change / previous if step > 1 else 0.5
                rate = max(now, before) if step > 2 else now
                previous, before = change, now
                if rate < 1.0 and change * rate <= (1.0 - rate) * 2.0**-13 * size:
                    break
                if rate > 0.9 or step == _SWEEPS or not rate >= 0.0:
                    if np.isfinite(first[:n]).all():
                        solved += 1
                        solution[:n] = _solve_noisy(inverse[k], n, row[begin:end], col[begin:end], error, first)
                    break
        right[:n] = solution[:n]
        _round(right[: kept[k]], adc)
        for i in range(kept[k]):
            x[k, i] = sign[k] * right[i] * scale[k, i] * power
    return solved


class Inverses:
    """The inverses of a bank of tiles, and the places of its noisy cells.

    Args:
        factors: of the tiles.
        offsets, row, col: cells with read noise by their places in the elimination, as `InvBank` has them.
    """

    def __init__(
        self, factors: Groups, offsets: NDArray[np.int64], row: NDArray[np.int16], col: NDArray[np.int16],
    ) -> None:
        inverse = factors.inverse().astype(np.float32)
        self._by_input = {False: np.ascontiguousarray(np.swapaxes(inverse, 1, 2)), True: np.ascontiguousarray(inverse)}
        owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self._cells = factors.rows[owner, row].astype(np.int64), factors.cols[owner, col].astype(np.int64)
        self._offsets, self._orders = offsets, (factors.rows, factors.cols)

    def shoot(
        self, x: NDArray[np.float64], read: NDArray[np.int32], deviation: NDArray[np.float32],
        drawn: NDArray[np.bool_], scale: NDArray[np.float64], sign: NDArray[np.float64], which: NDArray[np.bool_],
        codes: tuple[int, int], key: tuple[int, int, NDArray[np.int64], int], sizes: NDArray[np.int32],
        transposed: bool,
    ) -> int:
        """Let the tiles of `which` settle once, in place; see `InvBank.shoot`. Return how many were solved densely.

        Args:
            codes: of the converters. key: seed, stream word, tile ids and event of the read noise.
        """
        seed, word, tiles, event = key
        row, col = self._cells[::-1] if transposed else self._cells
        lengths = np.diff(self._offsets)
        noisy = lengths > 0
        lines, cells = (np.concatenate(([0], np.cumsum(np.where(wanted & which & noisy, count, 0)))).astype(np.int64)
                        for wanted, count in ((~drawn, sizes), (drawn, lengths)))
        draws = [read_normal(ends, seed=seed, word=word, tiles=tiles, event=event) for ends in (lines, cells)]
        solved: int = _shoot(self._by_input[transposed], sizes, read, self._offsets, row, col, deviation, drawn, lines,
                             draws[0], cells, draws[1], self._orders[transposed], scale, sign, which, *codes, x)
        return solved

"""Shots of INV tiles in which nearly every line is coupled to every other, by stored inverses.

Dense blocks and wires leave no zero in what the amplifiers see, and the factors of a full matrix are slower to solve
with than its inverse is to multiply with: 128 lines are 64 kB, against a band of 128 kB. Only for tiles whose read
noise, if any, may be taken to first order: with more of it every shot has a matrix of its own (`analogpde.tile.shots`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.tile.factors import Groups
from analogpde.tile.kernels import round_to_codes
from analogpde.tile.noise import read_normal

MOST_ENTRIES = 1 << 27  # of all inverses of a bank, 512 MB; above it the factors serve


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
def _shoot(inverse, weight, sizes, kept, line_offsets, line_draws, order, bias, transposed, scale, sign, which,  # type: ignore[no-untyped-def]
           dac, adc, x):
    """One shot of every tile of `which`, in place on x (K, n)."""
    n_max = x.shape[1]
    b, first = np.zeros(n_max, np.float32), np.zeros(n_max, np.float32)
    square, variance = np.zeros(n_max, np.float32), np.zeros(n_max, np.float32)
    for k in range(sizes.size):
        if not which[k]:
            continue
        n = sizes[k]
        largest = 0.0
        for i in range(n):
            largest = max(largest, abs(x[k, i] * scale[k, i]))
        power = 1.0
        if 0.0 < largest < np.inf:
            power = math.ldexp(1.0, math.frexp(largest)[1] - 1)
        for i in range(n):
            b[i] = x[k, i] * scale[k, i] / power
        round_to_codes(b[:n], dac)
        _apply(inverse[k], n, b, first)
        begin = line_offsets[k]
        if line_offsets[k + 1] > begin:
            for i in range(n):
                square[i] = first[i] * first[i]
            _apply(weight[k], n, square, variance)
            for t in range(n):  # draws are those of the places, as with factors
                i = order[k, t]
                b[i] -= np.sqrt(variance[i]) * line_draws[begin + t]
            if bias.shape[0] > 0:  # to first order too: Ĝ⁻¹ η 1ᵀ x, transposed Ĝ⁻ᵀ 1 ηᵀ x
                total = np.float32(0.0)
                for i in range(n):
                    total += bias[k, i] * first[i] if transposed else first[i]
                for i in range(n):
                    b[i] += total if transposed else bias[k, i] * total
            _apply(inverse[k], n, b, first)
        round_to_codes(first[: kept[k]], adc)
        for i in range(kept[k]):
            x[k, i] = sign[k] * first[i] * scale[k, i] * power


class Inverses:
    """The inverses of a bank of tiles, and the variances of their cells' read noise.

    Args:
        factors: of the tiles.
        offsets, row, col, deviation: cells with read noise by their places in the elimination, as `InvBank` has them.
    """

    def __init__(
        self, factors: Groups, offsets: NDArray[np.int64], row: NDArray[np.int16], col: NDArray[np.int16],
        deviation: NDArray[np.float32],
    ) -> None:
        inverse = factors.inverse().astype(np.float32)
        count, n = factors.rows.shape
        self._noisy = np.diff(offsets) > 0
        owner = np.repeat(np.arange(count), np.diff(offsets))
        weight = np.zeros((count, n, n) if self._noisy.any() else (count, 0, 0), np.float32)
        weight[owner, factors.rows[owner, row], factors.cols[owner, col]] = deviation**2
        # by direction of the shot; row j is what line j contributes
        self._by_input = {False: (
            np.ascontiguousarray(np.swapaxes(inverse, 1, 2)), np.ascontiguousarray(np.swapaxes(weight, 1, 2)))}
        self._orders = {False: factors.rows, True: factors.cols}

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes; a transposed shot doubles it."""
        return sum(array.nbytes for arrays in self._by_input.values() for array in arrays)

    def shoot(
        self, x: NDArray[np.float64], read: NDArray[np.int32], scale: NDArray[np.float64], sign: NDArray[np.float64],
        which: NDArray[np.bool_], codes: tuple[int, int], key: tuple[int, int, NDArray[np.int64], int],
        sizes: NDArray[np.int32], transposed: bool, bias: NDArray[np.float32],
    ) -> None:
        """Let the tiles of `which` settle once, in place; see `InvBank.shoot`.

        Args:
            codes: of the converters. key: seed, stream word, tile ids and event of the read noise.
            bias: read noise of the bias cells, by row, shape (K, n); no rows without.
        """
        seed, word, tiles, event = key
        lines = np.concatenate(([0], np.cumsum(np.where(which & self._noisy, sizes, 0)))).astype(np.int64)
        draws = read_normal(lines, seed=seed, word=word, tiles=tiles, event=event)
        if transposed not in self._by_input:
            inverse, weight = (np.ascontiguousarray(np.swapaxes(array, 1, 2)) for array in self._by_input[False])
            self._by_input[transposed] = inverse, weight
        inverse, weight = self._by_input[transposed]
        _shoot(inverse, weight, sizes, read, lines, draws, self._orders[transposed], bias, transposed, scale,
               sign, which, *codes, x)

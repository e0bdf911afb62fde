"""Compiled kernels of the tiles: random draws and INV shots, in one file, as Numba's cache wants it.

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011), counter based, so that no state is
kept, no tile depends on another, and no rank count or batch order changes what a tile draws.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from analogpde.compiled import compiled

_LOW = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers and Weyl increments of Philox4x32 (Salmon et al., table 2)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
# quantiles at k/4096; the two infinite ends are never read
_TABLE = np.concatenate(([0.0], ndtri(np.arange(1, 4096) / 4096.0), [0.0]))


@compiled
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Return the four 32-bit words of Philox4x32-10 for a counter and a key (all as uint64 below 2^32)."""
    low = np.uint64(_LOW)
    half = np.uint64(32)
    c0, c1, c2, c3 = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        p0 = np.uint64(_M0) * c0
        p1 = np.uint64(_M1) * c2
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & low, (p0 >> half) ^ c3 ^ k1, p0 & low
        k0 = (k0 + np.uint64(_W0)) & low
        k1 = (k1 + np.uint64(_W1)) & low
    return c0, c1, c2, c3


@compiled
def _quantile(u):  # type: ignore[no-untyped-def]
    """Return the standard normal quantile of a 32-bit integer.

    Between the quantiles 2^-8 and 1 − 2^-8 a table of 4096 intervals is interpolated (error below 2e-4, the
    inverse's curvature at 2^-8 times an eighth of the interval squared); the tails are Acklam's rational
    approximation (relative error 1.2e-9). Four times as fast as Box–Muller, whose time goes into log and cos.
    """
    interval = u >> np.uint64(20)
    if np.uint64(16) <= interval < np.uint64(4080):
        fraction = (np.float64(u & np.uint64(0xFFFFF)) + 0.5) * (1.0 / 1048576.0)
        left = _TABLE[interval]
        return left + fraction * (_TABLE[interval + np.uint64(1)] - left)
    probability = (np.float64(u) + 0.5) * (1.0 / 4294967296.0)
    upper = probability > 0.5
    q = math.sqrt(-2.0 * math.log(1.0 - probability if upper else probability))
    top = ((((-7.784894002430293e-03 * q - 3.223964580411365e-01) * q - 2.400758277161838) * q
            - 2.549732539343734) * q + 4.374664141464968) * q + 2.938163982698783
    bottom = (((7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996) * q
              + 3.754408661907416) * q + 1.0
    return -top / bottom if upper else top / bottom


@compiled
def fill_normal(out, seed, word, tile, event):  # type: ignore[no-untyped-def]
    """Fill `out` with independent standard normal draws of one tile and event."""
    key0, key1 = np.uint64(seed) & np.uint64(_LOW), np.uint64(seed) >> np.uint64(32)
    n = out.size
    for block in range((n + 3) // 4):
        words = philox(block, tile, event, word, key0, key1)
        i = 4 * block
        out[i] = _quantile(words[0])
        if i + 1 < n:
            out[i + 1] = _quantile(words[1])
        if i + 2 < n:
            out[i + 2] = _quantile(words[2])
        if i + 3 < n:
            out[i + 3] = _quantile(words[3])


@compiled
def fill_segments(out, offsets, seed, word, tiles, event):  # type: ignore[no-untyped-def]
    """Fill out[offsets[k]:offsets[k + 1]] with the draws of tile k."""
    for k in range(tiles.size):
        fill_normal(out[offsets[k]:offsets[k + 1]], seed, word, tiles[k], event)


@compiled
def round_to_codes(vector, codes):  # type: ignore[no-untyped-def]
    """Round a vector in place to `codes` steps of its own largest magnitude (block exponent); 0 is ideal."""
    if codes > 0:
        largest = 0.0
        for i in range(vector.size):
            largest = max(largest, abs(vector[i]))
        if largest > 0.0:
            step = largest / codes
            for i in range(vector.size):
                vector[i] = np.rint(vector[i] / step) * step


@compiled
def shoot(inverse, sizes, kept, offsets, row, col, deviation, drawn, scale, sign, dac, adc, seed, word, tiles, event,  # type: ignore[no-untyped-def]
           x):
    """One shot of every tile, in place on x (K, n); return the number of shots solved densely."""
    n_max = inverse.shape[1]
    noise = np.empty(n_max)
    variance = np.empty(n_max, np.float32)
    dense_solves = 0
    for k in range(sizes.size):
        n = sizes[k]
        begin, end = offsets[k], offsets[k + 1]
        b = np.empty(n, np.float32)
        # the block exponent: tiles work in FP32, the vector's size must not
        largest = 0.0
        for i in range(n):
            largest = max(largest, abs(x[k, i] * scale[k, i]))
        power = 1.0
        if 0.0 < largest < np.inf:
            power = math.ldexp(1.0, math.frexp(largest)[1] - 1)
        for i in range(n):
            b[i] = x[k, i] * scale[k, i] / power
        round_to_codes(b, dac)
        tile = inverse[k, :n]
        if n < n_max:
            tile = np.ascontiguousarray(tile[:, :n])
        y = np.dot(tile, b)
        if end > begin and not drawn[k]:
            # first order: x − Ĝ⁻¹ξ, ξ_i normal with variance Σ_j σ_ij² x_j²
            for i in range(n):
                variance[i] = 0.0
            for e in range(begin, end):
                variance[row[e]] += (deviation[e] * y[col[e]]) ** 2
            fill_normal(noise[:n], seed, word, tiles[k], event)
            for i in range(n):
                b[i] -= np.float32(np.sqrt(variance[i]) * noise[i])
            y = np.dot(tile, b)
        elif end > begin:
            error = np.empty(end - begin)
            fill_normal(error, seed, word, tiles[k], event)
            for e in range(end - begin):
                error[e] *= deviation[begin + e]
            first = y
            previous = np.inf
            settled = False
            for _ in range(24):
                rest = b.copy()
                for e in range(begin, end):
                    rest[row[e]] -= np.float32(error[e - begin]) * y[col[e]]
                after = np.dot(tile, rest)
                change, size = 0.0, 0.0
                for i in range(n):
                    change = max(change, abs(after[i] - y[i]))
                    size = max(size, abs(after[i]))
                y = after
                if change <= 2.0**-12 * size:
                    settled = True
                    break
                if change > 0.9 * previous:
                    break
                previous = change
            if not settled and np.isfinite(first).all():  # else what came in was not finite and goes out so
                dense_solves += 1
                matrix = np.eye(n, dtype=np.float32)
                for e in range(begin, end):
                    for i in range(n):
                        matrix[i, col[e]] += tile[i, row[e]] * np.float32(error[e - begin])
                y = np.linalg.solve(matrix, first)
        read = y[:kept[k]]
        round_to_codes(read, adc)
        for i in range(kept[k]):
            x[k, i] = sign[k] * read[i] * scale[k, i] * power
    return dense_solves

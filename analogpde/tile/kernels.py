"""Compiled kernels of the tiles: random draws, substitution with stored factors.

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011), counter based, so that no state is
kept, no tile depends on another, and no rank count or batch order changes what a tile draws.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from analogpde.compiled import compiled
from analogpde.tile.lanes import LANES

_LOW = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers and Weyl increments of Philox4x32 (Salmon et al., table 2)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
# quantiles at k/4096; the two infinite ends are never read
_TABLE = np.concatenate(([0.0], ndtri(np.arange(1, 4096) / 4096.0), [0.0]))
# 2^14 equally probable values of zero mean and unit variance, within four deviations
_VALUES = ndtri((np.arange(2**14) + 0.5) / 2**14)
_VALUES = (_VALUES / np.sqrt(np.mean(_VALUES**2))).astype(np.float32)


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
def fill_read(out, words, count, seed, word, tile, event):  # type: ignore[no-untyped-def]
    """Fill out[:count] with draws of read noise: normal, but of 2^14 values.

    Twelve times as fast as `fill_normal`: every cell draws at every shot, and what is seen on a line is the sum over
    the cells of a row. The rounds of `philox` are written out here: LLVM does not vectorise them across a call.
    `words` is room of shape (4, count/8 + 1), `out` of count + 8.
    """
    blocks = (count + 7) // 8
    low, half = np.uint64(_LOW), np.uint64(32)
    key0, key1 = np.uint64(seed) & low, np.uint64(seed) >> half
    for block in range(blocks):
        c0, c1, c2, c3 = np.uint64(block), np.uint64(tile), np.uint64(event), np.uint64(word)
        k0, k1 = key0, key1
        for _ in range(10):
            p0, p1 = np.uint64(_M0) * c0, np.uint64(_M1) * c2
            c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & low, (p0 >> half) ^ c3 ^ k1, p0 & low
            k0, k1 = (k0 + np.uint64(_W0)) & low, (k1 + np.uint64(_W1)) & low
        words[0, block], words[1, block], words[2, block], words[3, block] = c0, c1, c2, c3
    for s in range(4):
        for block in range(blocks):
            i = 2 * (s * blocks + block)
            out[i] = _VALUES[np.int64(words[s, block] & np.uint64(0x3FFF))]
            out[i + 1] = _VALUES[np.int64((words[s, block] >> np.uint64(16)) & np.uint64(0x3FFF))]


@compiled
def fill_segments(out, offsets, seed, word, tiles, event):  # type: ignore[no-untyped-def]
    """Fill out[offsets[k]:offsets[k + 1]] with the draws of tile k."""
    for k in range(tiles.size):
        fill_normal(out[offsets[k]:offsets[k + 1]], seed, word, tiles[k], event)


@compiled
def fill_read_segments(out, offsets, seed, word, tiles, event):  # type: ignore[no-untyped-def]
    """Fill out[offsets[k]:offsets[k + 1]] with the read noise of tile k."""
    longest = 0
    for k in range(tiles.size):
        longest = max(longest, offsets[k + 1] - offsets[k])
    room, words = np.empty(longest + 8, np.float32), np.empty((4, longest // 8 + 1), np.uint64)
    for k in range(tiles.size):
        count = offsets[k + 1] - offsets[k]
        fill_read(room, words, count, seed, word, tiles[k], event)
        out[offsets[k]:offsets[k + 1]] = room[:count]


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
def _subtract(y, q, data, p, v):  # type: ignore[no-untyped-def]
    """y[q] −= data[p] · v, lane by lane; all is read before anything is written, so that vector registers serve."""
    a0 = y[q, 0] - data[p, 0] * v[0]
    a1 = y[q, 1] - data[p, 1] * v[1]
    a2 = y[q, 2] - data[p, 2] * v[2]
    a3 = y[q, 3] - data[p, 3] * v[3]
    a4 = y[q, 4] - data[p, 4] * v[4]
    a5 = y[q, 5] - data[p, 5] * v[5]
    a6 = y[q, 6] - data[p, 6] * v[6]
    a7 = y[q, 7] - data[p, 7] * v[7]
    y[q, 0], y[q, 1], y[q, 2], y[q, 3] = a0, a1, a2, a3
    y[q, 4], y[q, 5], y[q, 6], y[q, 7] = a4, a5, a6, a7


@compiled
def _lanes(y, q):  # type: ignore[no-untyped-def]
    return y[q, 0], y[q, 1], y[q, 2], y[q, 3], y[q, 4], y[q, 5], y[q, 6], y[q, 7]


@compiled
def _scale_lanes(y, q, data, p):  # type: ignore[no-untyped-def]
    a, b = _lanes(y, q), _lanes(data, p)
    y[q, 0], y[q, 1], y[q, 2], y[q, 3] = a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]
    y[q, 4], y[q, 5], y[q, 6], y[q, 7] = a[4] * b[4], a[5] * b[5], a[6] * b[6], a[7] * b[7]


@compiled
def _substitute(data, base, n, w, y):  # type: ignore[no-untyped-def]
    """Solve L U y = y in place for a group; the place t is y[w + t], the w rows of y on either side are room."""
    for j in range(n):
        v = _lanes(y, w + j)
        lower, target = base + 2 * w * j, w + j + 1
        for i in range(w):
            _subtract(y, target + i, data, lower + i, v)
    diagonal = base + 2 * w * n
    for j in range(n - 1, -1, -1):
        _scale_lanes(y, w + j, data, diagonal + j)
        v = _lanes(y, w + j)
        upper = base + 2 * w * j + w
        for i in range(w):
            _subtract(y, j + i, data, upper + i, v)


@compiled
def _substitute_transposed(data, base, n, w, y):  # type: ignore[no-untyped-def]
    """Solve (L U)ᵀ y = y in place for a group; room as for `_substitute`, zero."""
    diagonal = base + 2 * w * n
    for j in range(n):
        upper = base + 2 * w * j + w
        for i in range(w):
            _subtract(y, w + j, data, upper + i, _lanes(y, j + i))
        _scale_lanes(y, w + j, data, diagonal + j)
    for j in range(n - 1, -1, -1):
        lower = base + 2 * w * j
        for i in range(w):
            _subtract(y, w + j, data, lower + i, _lanes(y, w + j + 1 + i))


@compiled
def _settle(data, base, n, w, y, transposed):  # type: ignore[no-untyped-def]
    if transposed:
        _substitute_transposed(data, base, n, w, y)
    else:
        _substitute(data, base, n, w, y)


@compiled
def _room(n, w, y):  # type: ignore[no-untyped-def]
    """Zero what lies on either side of the places; leftovers there could be infinite."""
    y[:w] = 0.0
    y[w + n: 2 * w + n] = 0.0


@compiled
def solve_groups(data, members, group_base, group_width, group_size, rows, cols, sizes, starts, columns, right,  # type: ignore[no-untyped-def]
                 transposed):
    """Solve every block for columns[k] right-hand sides in place; they follow each other from right[starts[k]]."""
    longest = 0
    for g in range(group_base.size):
        longest = max(longest, group_size[g] + 2 * group_width[g])
    y = np.empty((longest, LANES), data.dtype)
    into, out = (cols, rows) if transposed else (rows, cols)
    for g in range(group_base.size):
        n, w = group_size[g], group_width[g]
        most = 0
        for lane in range(LANES):
            if members[g, lane] >= 0:
                most = max(most, columns[members[g, lane]])
        for c in range(most):
            _room(n, w, y)
            y[w: w + n] = 0.0
            for lane in range(LANES):
                k = members[g, lane]
                if k >= 0 and c < columns[k]:
                    begin = starts[k] + c * sizes[k]
                    for t in range(sizes[k]):
                        y[w + t, lane] = right[begin + into[k, t]]
            _settle(data, group_base[g], n, w, y, transposed)
            for lane in range(LANES):
                k = members[g, lane]
                if k >= 0 and c < columns[k]:
                    begin = starts[k] + c * sizes[k]
                    for t in range(sizes[k]):
                        right[begin + out[k, t]] = y[w + t, lane]


@compiled
def probe_groups(data, members, group_base, group_width, group_size, rows, sizes, begin, first, start, y, norm):  # type: ignore[no-untyped-def]
    """One step of the power iteration on (L U)⁻ᵀ (L U)⁻¹ for every block: norm[k] becomes ‖(L U)⁻¹ v‖ for ‖v‖ = 1.

    Group g has the rows from begin[g] of y to itself. The first step takes `start`, by rows of the blocks.
    """
    total = np.empty(LANES)
    for g in range(group_base.size):
        n, w = group_size[g], group_width[g]
        v = y[begin[g]: begin[g] + n + 2 * w]
        if first:
            v[:] = 0.0
            for lane in range(LANES):
                k = members[g, lane]
                if k >= 0:
                    for t in range(sizes[k]):
                        v[w + t, lane] = start[rows[k, t]]
        else:
            _room(n, w, v)
            _settle(data, group_base[g], n, w, v, True)
        for again in range(2):
            total[:] = 0.0
            for t in range(w, w + n):
                for lane in range(LANES):
                    total[lane] += np.float64(v[t, lane]) * np.float64(v[t, lane])
            if again == 0:
                for lane in range(LANES):
                    total[lane] = 1.0 / max(np.sqrt(total[lane]), 1e-30)
                for t in range(w, w + n):
                    for lane in range(LANES):
                        v[t, lane] *= np.float32(total[lane])
                _room(n, w, v)
                _settle(data, group_base[g], n, w, v, False)
        for lane in range(LANES):
            if members[g, lane] >= 0:
                norm[members[g, lane]] = np.sqrt(total[lane])

"""Compiled kernels of the tiles: random draws, substitution with stored factors.

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011), counter based, so that no state is
kept, no tile depends on another, and no rank count or batch order changes what a tile draws.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from analogpde.compiled import compiled
from analogpde.tile.lanes import (
    LANES,
    PHILOX_INCREMENTS,
    PHILOX_MULTIPLIERS,
    load,
    minus_product,
    product,
    store,
    store_random,
)

_LOW = 0xFFFFFFFF
(_M0, _M1), (_W0, _W1) = PHILOX_MULTIPLIERS, PHILOX_INCREMENTS
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
def fill_bits(words, count, seed, word, tile, event):  # type: ignore[no-untyped-def]
    """Fill `words` (uint32) with what makes `count` draws of read noise, eight counters of the generator at a time.

    Draw i is `look_up` of half i, low halves first; 4 · ceil(count/8) words are written.
    """
    key0, key1 = np.uint64(seed) & np.uint64(_LOW), np.uint64(seed) >> np.uint64(32)
    blocks = (count + 7) // 8
    if blocks < LANES:
        for block in range(blocks):
            words[block], words[blocks + block], words[2 * blocks + block], words[3 * blocks + block] = philox(
                block, tile, event, word, key0, key1)
        return
    for block in range(0, blocks, LANES):  # the last eight again in part: the same counters give the same words
        store_random(words, blocks, min(block, blocks - LANES), np.uint64(tile), np.uint64(event), np.uint64(word),
                     key0, key1)


@compiled
def look_up(half):  # type: ignore[no-untyped-def]
    """Return the draw of 16 random bits: normal, but of 2^14 values."""
    return _VALUES[half & np.uint16(0x3FFF)]


@compiled
def fill_read(out, words, count, seed, word, tile, event):  # type: ignore[no-untyped-def]
    """Fill out[:count] with draws of read noise: normal, but of 2^14 values.

    Seven times as fast as `fill_normal`: every cell draws at every shot, and what is seen on a line is the sum over
    the cells of a row. `words` is room, uint32, of count/2 + 4.
    """
    fill_bits(words, count, seed, word, tile, event)
    halves = words.view(np.uint16)
    for i in range(count):
        out[i] = look_up(halves[i])


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
    words = np.empty(longest // 2 + 4, np.uint32)
    for k in range(tiles.size):
        fill_read(out[offsets[k]:], words, offsets[k + 1] - offsets[k], seed, word, tiles[k], event)


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
def _substitute(data, base, n, w, y):  # type: ignore[no-untyped-def]
    """Solve L U y = y in place for a group; the place t is y[w + t], the w rows of y on either side are room."""
    for j in range(n):
        v = load(y, w + j)
        lower, target = base + 2 * w * j, w + j + 1
        for i in range(w):
            store(y, target + i, minus_product(load(y, target + i), load(data, lower + i), v))
    diagonal = base + 2 * w * n
    for j in range(n - 1, -1, -1):
        v = product(load(y, w + j), load(data, diagonal + j))
        store(y, w + j, v)
        upper = base + 2 * w * j + w
        for i in range(w):
            store(y, j + i, minus_product(load(y, j + i), load(data, upper + i), v))


@compiled
def _substitute_transposed(data, base, n, w, y):  # type: ignore[no-untyped-def]
    """Solve (L U)ᵀ y = y in place for a group; room as for `_substitute`, zero."""
    diagonal = base + 2 * w * n
    for j in range(n):
        upper, v = base + 2 * w * j + w, load(y, w + j)
        for i in range(w):
            v = minus_product(v, load(data, upper + i), load(y, j + i))
        store(y, w + j, product(v, load(data, diagonal + j)))
    for j in range(n - 1, -1, -1):
        lower, v = base + 2 * w * j, load(y, w + j)
        for i in range(w - 1, -1, -1):
            v = minus_product(v, load(data, lower + i), load(y, w + j + 1 + i))
        store(y, w + j, v)


@compiled
def settle(data, base, n, w, y, transposed):  # type: ignore[no-untyped-def]
    """Solve with the factors of a group in place; what lies beyond its places, possibly infinite, is zeroed."""
    y[:w] = 0.0
    y[w + n: 2 * w + n] = 0.0
    if transposed:
        _substitute_transposed(data, base, n, w, y)
    else:
        _substitute(data, base, n, w, y)


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
            y[w: w + n] = 0.0
            for lane in range(LANES):
                k = members[g, lane]
                if k >= 0 and c < columns[k]:
                    begin = starts[k] + c * sizes[k]
                    for t in range(sizes[k]):
                        y[w + t, lane] = right[begin + into[k, t]]
            settle(data, group_base[g], n, w, y, transposed)
            for lane in range(LANES):
                k = members[g, lane]
                if k >= 0 and c < columns[k]:
                    begin = starts[k] + c * sizes[k]
                    for t in range(sizes[k]):
                        right[begin + out[k, t]] = y[w + t, lane]


@compiled
def _norms(y, w, n, out):  # type: ignore[no-untyped-def]
    out[:] = 0.0
    for t in range(w, w + n):
        for lane in range(LANES):
            out[lane] += np.float64(y[t, lane]) * np.float64(y[t, lane])
    for lane in range(LANES):
        out[lane] = np.sqrt(out[lane])


@compiled
def probe_groups(data, members, group_base, group_width, group_size, rows, sizes, starts, steps, settled, norm):  # type: ignore[no-untyped-def]
    """Estimate ‖(L U)⁻¹‖ of every block by power iteration from below, the largest from several `starts`.

    A group is done when no value in it has grown by more than the fraction `settled`, after three steps at least and
    `steps` at most. The starts are by rows of the blocks, shape (S, n).
    """
    longest = 0
    for g in range(group_base.size):
        longest = max(longest, group_size[g] + 2 * group_width[g])
    y = np.empty((longest, LANES), data.dtype)
    length, before = np.empty(LANES), np.empty(LANES)
    for g in range(group_base.size):
        n, w = group_size[g], group_width[g]
        for start in range(starts.shape[0]):
            y[: n + 2 * w] = 0.0
            for lane in range(LANES):
                k = members[g, lane]
                for t in range(sizes[k] if k >= 0 else 0):
                    y[w + t, lane] = starts[start, rows[k, t]]
            before[:] = 0.0
            for step in range(steps):
                if step > 0:
                    settle(data, group_base[g], n, w, y, True)
                _norms(y, w, n, length)
                for lane in range(LANES):
                    length[lane] = 1.0 / max(length[lane], 1e-30)
                for t in range(w, w + n):
                    for lane in range(LANES):
                        y[t, lane] *= np.float32(length[lane])
                settle(data, group_base[g], n, w, y, False)
                _norms(y, w, n, length)
                moving = False
                for lane in range(LANES):
                    if members[g, lane] >= 0:
                        moving = moving or length[lane] > (1.0 + settled) * before[lane]
                        if length[lane] > before[lane]:  # not if no number
                            before[lane] = length[lane]
                if step >= 2 and not moving:
                    break
            for lane in range(LANES):
                k = members[g, lane]
                if k >= 0:
                    norm[k] = max(norm[k], before[lane])

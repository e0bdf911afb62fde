"""Compiled kernels that factorise blocks: order of the rows, elimination with and without row exchanges."""

from __future__ import annotations

import numpy as np

from analogpde.compiled import compiled
from analogpde.tile.lanes import LANES


@compiled
def band_order(offsets, row, col, sizes, order, width):  # type: ignore[no-untyped-def]
    """Order the rows of each block breadth first from its rim (reversed Cuthill–McKee); find its half bandwidth.

    `order[k, t]` is the row at place t, `width[k]` the half bandwidth in that order.
    """
    n_max = order.shape[1]
    start = np.empty(n_max + 1, np.int64)
    place = np.empty(n_max, np.int64)
    queue = np.empty(n_max, np.int64)
    for k in range(sizes.size):
        n = sizes[k]
        begin, end = offsets[k], offsets[k + 1]
        start[: n + 1] = 0
        for e in range(begin, end):
            start[row[e] + 1] += 1
        for i in range(n):
            start[i + 1] += start[i]
        seed = 0
        for i in range(n):
            if start[i + 1] - start[i] < start[seed + 1] - start[seed]:
                seed = i
        for _ in range(2):  # the last row met lies far off: a good place to start from
            place[:n] = -1
            head = tail = lowest = 0
            while head < n:
                if head == tail:
                    if place[seed] >= 0:  # another part of the block
                        while place[lowest] >= 0:
                            lowest += 1
                        seed = lowest
                    place[seed] = tail
                    queue[tail] = seed
                    tail += 1
                i = queue[head]
                head += 1
                for e in range(begin + start[i], begin + start[i + 1]):
                    j = col[e]
                    if place[j] < 0:
                        place[j] = tail
                        queue[tail] = j
                        tail += 1
            if n > 0:
                seed = queue[n - 1]
        for t in range(n):
            order[k, t] = queue[n - 1 - t]
        widest = 0
        for e in range(begin, end):
            widest = max(widest, abs(place[row[e]] - place[col[e]]))
        width[k] = widest


@compiled
def _lanes(y, q):  # type: ignore[no-untyped-def]
    return y[q, 0], y[q, 1], y[q, 2], y[q, 3], y[q, 4], y[q, 5], y[q, 6], y[q, 7]


@compiled
def _subtract(y, q, p, v):  # type: ignore[no-untyped-def]
    """y[q] −= y[p] · v, lane by lane; all is read before anything is written, so that vector registers serve."""
    q, p = np.uint64(q), np.uint64(p)  # signed ones would be tried for counting from the end
    a, b = _lanes(y, q), _lanes(y, p)
    y[q, 0], y[q, 1] = a[0] - b[0] * v[0], a[1] - b[1] * v[1]
    y[q, 2], y[q, 3] = a[2] - b[2] * v[2], a[3] - b[3] * v[3]
    y[q, 4], y[q, 5] = a[4] - b[4] * v[4], a[5] - b[5] * v[5]
    y[q, 6], y[q, 7] = a[6] - b[6] * v[6], a[7] - b[7] * v[7]


@compiled
def _subtract_two(y, q, p, v, r, u):  # type: ignore[no-untyped-def]
    """y[q] −= y[p] · v and then −= y[r] · u, lane by lane."""
    q, p, r = np.uint64(q), np.uint64(p), np.uint64(r)
    a, b, c = _lanes(y, q), _lanes(y, p), _lanes(y, r)
    y[q, 0], y[q, 1] = a[0] - b[0] * v[0] - c[0] * u[0], a[1] - b[1] * v[1] - c[1] * u[1]
    y[q, 2], y[q, 3] = a[2] - b[2] * v[2] - c[2] * u[2], a[3] - b[3] * v[3] - c[3] * u[3]
    y[q, 4], y[q, 5] = a[4] - b[4] * v[4] - c[4] * u[4], a[5] - b[5] * v[5] - c[5] * u[5]
    y[q, 6], y[q, 7] = a[6] - b[6] * v[6] - c[6] * u[6], a[7] - b[7] * v[7] - c[7] * u[7]


@compiled
def _larger(y, q, x, p):  # type: ignore[no-untyped-def]
    """y[q] = max(y[q], |x[p]|), lane by lane."""
    q, p = np.uint64(q), np.uint64(p)
    a, b = _lanes(y, q), _lanes(x, p)
    b = (abs(b[0]), abs(b[1]), abs(b[2]), abs(b[3]), abs(b[4]), abs(b[5]), abs(b[6]), abs(b[7]))
    y[q, 0], y[q, 1] = b[0] if b[0] > a[0] else a[0], b[1] if b[1] > a[1] else a[1]
    y[q, 2], y[q, 3] = b[2] if b[2] > a[2] else a[2], b[3] if b[3] > a[3] else a[3]
    y[q, 4], y[q, 5] = b[4] if b[4] > a[4] else a[4], b[5] if b[5] > a[5] else a[5]
    y[q, 6], y[q, 7] = b[6] if b[6] > a[6] else a[6], b[7] if b[7] > a[7] else a[7]


@compiled
def eliminate(offsets, row, col, value, sizes, order, members, base, width, size, data, growth, smallest):  # type: ignore[no-untyped-def]
    """Factorise groups of `LANES` blocks side by side within their band, without pivoting: Ĝ = L U.

    Column j of a group is at base + 2 w j: w entries of L below the (unit) diagonal, then w of U above it; the inverted
    diagonals of U come last. Lanes without a block, and places beyond a block's rows, hold the identity. `growth[k]`
    becomes the largest |l_ik u_kj| over the largest entry, which bounds the error; `smallest[k]` the smallest pivot.
    The arithmetic is FP64, whatever `data` holds.
    """
    n_max = order.shape[1]
    most = 0
    for g in range(base.size):
        most = max(most, size[g] * (2 * width[g] + 1))
    work = np.empty((most, LANES))
    place = np.empty(n_max, np.int64)
    upper, lower = np.empty((n_max, LANES)), np.empty((1, LANES))
    largest, inverse, worst, least = np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES)
    rows = np.empty(LANES, np.int64)
    for g in range(base.size):
        n, w, here = size[g], width[g], base[g]
        high = 2 * w + 1  # entry (i, j) is at high j + w + i − j
        work[: n * high] = 0.0
        upper[:n], worst[:], least[:] = 0.0, 0.0, np.inf
        for lane in range(LANES):
            k = members[g, lane]
            rows[lane] = sizes[k] if k >= 0 else 0
            largest[lane] = 0.0
            if k >= 0:
                for t in range(rows[lane]):
                    place[order[k, t]] = t
                big = 0.0
                for e in range(offsets[k], offsets[k + 1]):
                    j = place[col[e]]
                    work[2 * w * j + w + place[row[e]], lane] += value[e]
                    big = max(big, abs(value[e]))
                largest[lane] = big
            for t in range(rows[lane], n):
                work[high * t + w, lane] = 1.0
        for j in range(n):
            column = 2 * w * j + w  # its row i is at column + i
            t = max(0, j - w)
            while t + 1 < j:  # two columns of L at a time: half the traffic of this one
                below, target = high * t + w + 1, column + t + 1
                u = _lanes(work, column + t)
                _subtract(work, target, below, u)
                v = _lanes(work, target)
                for i in range(1, min(w, n - 1 - t)):
                    _subtract_two(work, target + i, below + i, u, below + 2 * w + i, v)
                if w < n - 1 - t:
                    _subtract(work, target + w, below + 3 * w, v)
                t += 2
            if t < j:
                below, target = high * t + w + 1, column + t + 1
                u = _lanes(work, column + t)
                for i in range(min(w, n - 1 - t)):
                    _subtract(work, target + i, below + i, u)
            for lane in range(LANES):
                pivot = work[column + j, lane]
                inverse[lane] = 1.0 / pivot if pivot != 0.0 else 0.0
                if j < rows[lane]:
                    least[lane] = min(least[lane], pivot)
                    upper[j, lane] = abs(pivot)
                    if inverse[lane] == 0.0 or not np.isfinite(inverse[lane]):
                        worst[lane] = np.inf
                work[column + j, lane] = inverse[lane]
            for i in range(np.uint64(column + j + 1), np.uint64(column + j + w + 1)):
                for lane in range(LANES):
                    work[i, lane] *= inverse[lane]
        for j in range(n):
            target, column = here + 2 * w * j, high * j
            for i in range(w):
                below, above = np.uint64(column + w + 1 + i), np.uint64(column + i)
                to, then = np.uint64(target + i), np.uint64(target + w + i)
                for lane in range(LANES):
                    data[to, lane] = work[below, lane]
                    data[then, lane] = work[above, lane]
            for lane in range(LANES):
                data[here + 2 * w * n + j, lane] = work[column + w, lane]
            for i in range(max(0, w - j), w):
                _larger(upper, j - w + i, work, column + i)
        for t in range(n):
            lower[:] = 1.0
            for i in range(high * t + w + 1, high * (t + 1)):
                _larger(lower, 0, work, i)
            for lane in range(LANES):
                worst[lane] = max(worst[lane], lower[0, lane] * upper[t, lane])
        for lane in range(LANES):
            k = members[g, lane]
            if k >= 0:
                growth[k] = worst[lane] / largest[lane] if largest[lane] > 0.0 else np.inf
                smallest[k] = least[lane]


@compiled
def eliminate_pivoting(offsets, row, col, value, sizes, members, base, width, size, rows, data, regular):  # type: ignore[no-untyped-def]
    """Factorise full blocks with row exchanges, `rows[k, t]` the row at place t; the columns keep their places.

    `regular[k]` tells whether no pivot vanished. Layout as of `eliminate`; blocks that are not regular are
    zero there.
    """
    for g in range(base.size):
        w, here = width[g], base[g]
        last = here + 2 * w * size[g]
        data[here: last] = 0.0
        data[last: last + size[g]] = 1.0
        for lane in range(LANES):
            k = members[g, lane]
            if k < 0:
                continue
            n = sizes[k]
            a = np.zeros((n, n))
            for e in range(offsets[k], offsets[k + 1]):
                a[row[e], col[e]] += value[e]
            for t in range(n):
                rows[k, t] = t
            regular[k] = True
            for t in range(n):
                best = t
                for i in range(t + 1, n):
                    if abs(a[i, t]) > abs(a[best, t]):
                        best = i
                if not abs(a[best, t]) > 0.0:
                    regular[k] = False
                    break
                if best != t:
                    rows[k, t], rows[k, best] = rows[k, best], rows[k, t]
                    for j in range(n):
                        a[t, j], a[best, j] = a[best, j], a[t, j]
                a[t, t] = 1.0 / a[t, t]
                for i in range(t + 1, n):
                    a[i, t] *= a[t, t]
                    if a[i, t] != 0.0:
                        for j in range(t + 1, n):
                            a[i, j] -= a[i, t] * a[t, j]
            for j in range(n):
                data[last + j, lane] = a[j, j] if regular[k] else 0.0
                if regular[k]:
                    for i in range(j + 1, n):
                        data[here + 2 * w * j + i - j - 1, lane] = a[i, j]
                    for i in range(j):
                        data[here + 2 * w * j + 2 * w + i - j, lane] = a[i, j]


@compiled
def repack(source, source_base, source_width, source_size, group, lane_of, chosen, width, sizes, members, base,  # type: ignore[no-untyped-def]
           group_width, group_size, data):
    """Put factors of some blocks into groups of their own: new block k is block chosen[k] of the source.

    group, lane_of: where each block of the source is; width: half bandwidth of the new blocks.
    """
    for g in range(base.size):
        n, w, here = group_size[g], group_width[g], base[g]
        data[here: here + 2 * w * n] = 0.0
        data[here + 2 * w * n: here + (2 * w + 1) * n] = 1.0
        for lane in range(LANES):
            k = members[g, lane]
            if k < 0:
                continue
            old, start = chosen[k], 0
            h, at, mine = group[old], lane_of[old], width[k]
            wide, start = source_width[h], source_base[h]
            for j in range(sizes[k]):
                for i in range(mine):  # L from the diagonal down; U from w above the diagonal down to it
                    data[here + 2 * w * j + i, lane] = source[start + 2 * wide * j + i, at]
                    data[here + 2 * w * (j + 1) - mine + i, lane] = source[start + 2 * wide * (j + 1) - mine + i, at]
                data[here + 2 * w * n + j, lane] = source[start + 2 * wide * source_size[h] + j, at]


@compiled
def find_places(offsets, index, sizes, order, places):  # type: ignore[no-untyped-def]
    """Write at which place of the elimination the row (or column) of each entry is."""
    at = np.empty(order.shape[1], np.int16)
    for k in range(sizes.size):
        for t in range(sizes[k]):
            at[order[k, t]] = t
        for e in range(offsets[k], offsets[k + 1]):
            places[e] = at[index[e]]


@compiled
def find_widths(offsets, row, col, sizes, order, width):  # type: ignore[no-untyped-def]
    """Find the half bandwidth of each block in a given order."""
    at = np.empty(order.shape[1], np.int64)
    for k in range(sizes.size):
        for t in range(sizes[k]):
            at[order[k, t]] = t
        width[k] = 0
        for e in range(offsets[k], offsets[k + 1]):
            width[k] = max(width[k], abs(at[row[e]] - at[col[e]]))

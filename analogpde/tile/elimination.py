"""Compiled kernels that factorise blocks: order of the rows, elimination with and without row exchanges."""

from __future__ import annotations

import numpy as np

from analogpde.compiled import compiled


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
def eliminate(offsets, row, col, value, sizes, order, width, base, data, growth, smallest):  # type: ignore[no-untyped-def]
    """Factorise each block within its band, column by column, without pivoting: Ĝ = L U.

    Column j of `data[base[k]:]` is at 2 w j: w entries of L below the (unit) diagonal, then w of U above it; the
    inverted diagonals of U come last. `growth[k]` becomes the largest |l_ik u_kj| over the largest entry, which
    bounds the error; `smallest[k]` the smallest pivot. The arithmetic is FP64, whatever `data` holds.
    """
    n_max = order.shape[1]
    place = np.empty(n_max, np.int64)
    widest_u = np.empty(n_max)
    work = np.empty(0)
    for k in range(sizes.size):
        n, w = sizes[k], width[k]
        high = 2 * w + 1  # entry (i, j) is at high j + w + i − j
        if n * high > work.size:
            work = np.empty(n * high)
        work[: n * high] = 0.0
        for t in range(n):
            place[order[k, t]] = t
            widest_u[t] = 0.0
        largest = 0.0
        for e in range(offsets[k], offsets[k + 1]):
            i, j = place[row[e]], place[col[e]]
            work[high * j + w + i - j] += value[e]
            largest = max(largest, abs(value[e]))
        worst, least = 0.0, np.inf
        for j in range(n):
            column = work[high * j: high * (j + 1)]
            for t in range(max(0, j - w), j):
                u = column[w + t - j]
                if u != 0.0:
                    widest_u[t] = max(widest_u[t], abs(u))
                    lower = work[high * t + w + 1: high * (t + 1)]
                    target = column[w + t - j + 1: 2 * w + t - j + 1]
                    for i in range(w):
                        target[i] -= lower[i] * u
            pivot = column[w]
            least = min(least, pivot)
            widest_u[j] = max(widest_u[j], abs(pivot))
            inverse = 1.0 / pivot if pivot != 0.0 else 0.0
            if inverse == 0.0 or not np.isfinite(inverse):
                worst = np.inf
            column[w] = inverse
            for i in range(w + 1, high):
                column[i] *= inverse
        for t in range(n):
            multiplier = 1.0
            for i in range(high * t + w + 1, high * (t + 1)):
                multiplier = max(multiplier, abs(work[i]))
            worst = max(worst, multiplier * widest_u[t])
            for i in range(w):
                data[base[k] + 2 * w * t + i] = work[high * t + w + 1 + i]
                data[base[k] + 2 * w * t + w + i] = work[high * t + i]
            data[base[k] + 2 * w * n + t] = work[high * t + w]
        growth[k] = worst / largest if largest > 0.0 else np.inf
        smallest[k] = least


@compiled
def eliminate_pivoting(offsets, row, col, value, sizes, rows, width, base, data, regular):  # type: ignore[no-untyped-def]
    """Factorise full blocks with row exchanges, `rows[k, t]` the row at place t; the columns keep their places.

    `regular[k]` tells whether no pivot vanished. Layout as of `eliminate`.
    """
    for k in range(sizes.size):
        n, w = sizes[k], width[k]
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
        here = base[k]
        data[here: here + (2 * w + 1) * n] = 0.0
        if regular[k]:
            for j in range(n):
                for i in range(j + 1, n):
                    data[here + 2 * w * j + i - j - 1] = a[i, j]
                for i in range(j):
                    data[here + 2 * w * j + 2 * w + i - j] = a[i, j]
                data[here + 2 * w * n + j] = a[j, j]

"""The prolongation: near-null vectors cut to the cores, smoothed, truncated without losing the near-null space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.patches.grow import Patches


@compiled
def _smooth_rows(p_indptr, p_indices, p_values, s_indptr, s_indices, s_values, weight, threshold, out_indptr,
                 out_indices, out_values):
    longest = 0
    rows = p_indptr.size - 1
    for i in range(rows):
        longest = max(longest, p_indptr[i + 1] - p_indptr[i] + s_indptr[i + 1] - s_indptr[i])
    column, value = np.empty(longest, np.int64), np.empty(longest)
    total = 0
    for i in range(rows):
        count = 0
        for e in range(p_indptr[i], p_indptr[i + 1]):
            column[count], value[count] = p_indices[e], p_values[e]
            count += 1
        for e in range(s_indptr[i], s_indptr[i + 1]):
            c = s_indices[e]
            at = 0
            while at < count and column[at] != c:
                at += 1
            if at == count:
                column[at], value[at] = c, 0.0
                count += 1
            value[at] -= weight * s_values[e]
        sum_all, largest = 0.0, 0.0
        for t in range(count):
            sum_all += value[t]
            largest = max(largest, abs(value[t]))
        sum_kept, kept = 0.0, 0
        for t in range(count):
            if value[t] != 0.0 and abs(value[t]) >= threshold * largest:
                sum_kept += value[t]
                c, v = column[t], value[t]
                at = kept
                while at > 0 and column[at - 1] > c:  # sorted by column
                    column[at], value[at] = column[at - 1], value[at - 1]
                    at -= 1
                column[at], value[at] = c, v
                kept += 1
        factor = sum_all / sum_kept if abs(sum_kept) > 1e-3 * largest else 1.0
        for t in range(kept):
            out_indices[total + t], out_values[total + t] = column[t], factor * value[t]
        total += kept
        out_indptr[i + 1] = total


def smooth_rows(
    p_indptr: NDArray[np.integer], p_indices: NDArray[np.integer], p_values: NDArray[np.float64],
    s_indptr: NDArray[np.integer], s_indices: NDArray[np.integer], s_values: NDArray[np.float64],
    weight: float, threshold: float,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return P − weight · S, truncated.

    Entries below `threshold` of their row's largest magnitude are dropped and the row rescaled to its sum, so that
    constants stay in the range of P.

    Args:
        p_indptr, p_indices, p_values: P, CSR.
        s_indptr, s_indices, s_values: S with the same rows, CSR.
        weight, threshold: see above.

    Returns:
        Values, columns (sorted) and row offsets of the result: what `scipy.sparse.csr_matrix` takes.
    """
    room = len(p_values) + len(s_values)
    indptr, indices, values = np.zeros(len(p_indptr), np.int64), np.empty(room, np.int64), np.empty(room)
    _smooth_rows(p_indptr, p_indices, p_values, s_indptr, s_indices, s_values, weight, threshold, indptr, indices,
                 values)
    return values[: indptr[-1]].copy(), indices[: indptr[-1]].copy(), indptr


@compiled
def _orthonormalise(index, core, first, near, out, factors):
    """Gram–Schmidt, twice, of the near-null vectors on each core; a dependent one becomes zero."""
    count = near.shape[1]
    for k in range(core.size):
        n = core[k]
        q = np.empty((count, n))
        for c in range(count):
            before = 0.0
            for t in range(n):
                q[c, t] = near[index[k, t] - first, c]
                before += q[c, t] ** 2
            for _ in range(2):
                for d in range(c):
                    r = 0.0
                    for t in range(n):
                        r += q[d, t] * q[c, t]
                    factors[k, d, c] += r
                    for t in range(n):
                        q[c, t] -= r * q[d, t]
            after = 0.0
            for t in range(n):
                after += q[c, t] ** 2
            if after > 1e-16 * before:
                factors[k, c, c] = np.sqrt(after)
                for t in range(n):
                    q[c, t] /= factors[k, c, c]
            else:
                q[c] = 0.0
            for t in range(n):
                out[index[k, t] - first, c] = q[c, t]


def tentative(
    patches: Patches, first: int, near: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut the near-null vectors to the cores.

    Args:
        patches: of this rank.
        first: local number of the first owned unknown.
        near: near-null vectors on the owned unknowns, shape (owned, k).

    Returns:
        The values of each unknown in the k coarse unknowns of its core, shape (owned, k), and the near-null vectors
        in the coarse unknowns, shape (cores, k, k): out[i] @ coarse[core of i] = near[i]. One vector is taken as it is,
        several are made orthonormal on each core.
    """
    count = near.shape[1]
    if count == 1:
        return near.copy(), np.ones((patches.count, 1, 1))
    out, factors = np.zeros(near.shape), np.zeros((patches.count, count, count))
    _orthonormalise(patches.index, patches.core, first, np.ascontiguousarray(near), out, factors)
    return out, factors


@compiled
def _add_nodes(indices, values, begin, end, factor, width, node, value, count):
    """Add factor times the entries begin … end − 1 of a row to `count` nodes; return how many there are then."""
    for e in range(begin, end):
        c = indices[e] // width
        at = 0
        while at < count and node[at] != c:
            at += 1
        if at == count:
            node[at] = c
            value[at] = 0.0
            count += 1
        value[at, indices[e] % width] += factor * values[e]
    return count


@compiled
def _smooth_block_rows(p_indptr, p_indices, p_values, s_indptr, s_indices, s_values, weight, threshold, near, width,
                       out_indptr, out_indices, out_values):
    longest = 0
    rows = p_indptr.size - 1
    vectors = near.shape[1]
    for i in range(rows):
        longest = max(longest, p_indptr[i + 1] - p_indptr[i] + s_indptr[i + 1] - s_indptr[i])
    node, value = np.empty(longest, np.int64), np.empty((longest, width))
    gram, lost = np.empty((vectors, vectors)), np.empty(vectors)
    total = 0
    for i in range(rows):
        count = 0
        count = _add_nodes(p_indices, p_values, p_indptr[i], p_indptr[i + 1], 1.0, width, node, value, 0)
        count = _add_nodes(s_indices, s_values, s_indptr[i], s_indptr[i + 1], -weight, width, node, value, count)
        largest = 0.0
        for t in range(count):
            largest = max(largest, np.abs(value[t]).max())
        gram[:], lost[:] = 0.0, 0.0
        kept = 0
        for t in range(count):
            keep = largest > 0.0 and np.abs(value[t]).max() >= threshold * largest
            for c in range(width):
                b = near[node[t] * width + c]
                if keep:
                    for u in range(vectors):
                        for v in range(vectors):
                            gram[u, v] += b[u] * b[v]
                else:
                    for u in range(vectors):
                        lost[u] += value[t, c] * b[u]
            if keep:
                node[kept] = node[t]
                value[kept] = value[t]
                kept += 1
        if 0 < kept < count:  # the smallest change of what is kept that brings back the near-null vectors
            size = 0.0
            for u in range(vectors):
                size = max(size, gram[u, u])
            for u in range(vectors):
                gram[u, u] += 1e-12 * size
            multiplier = np.linalg.solve(gram, lost)
            for t in range(kept):
                for c in range(width):
                    for u in range(vectors):
                        value[t, c] += near[node[t] * width + c, u] * multiplier[u]
        order = np.argsort(node[:kept])
        for t in order:
            for c in range(width):
                if value[t, c] != 0.0:
                    out_indices[total], out_values[total] = node[t] * width + c, value[t, c]
                    total += 1
        out_indptr[i + 1] = total


def smooth_block_rows(
    p_indptr: NDArray[np.integer], p_indices: NDArray[np.integer], p_values: NDArray[np.float64],
    s_indptr: NDArray[np.integer], s_indices: NDArray[np.integer], s_values: NDArray[np.float64],
    weight: float, threshold: float, near: NDArray[np.float64], width: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return P − weight · S, truncated by coarse nodes, as `smooth_rows` does by entries.

    What is dropped of a row is made good in the entries that stay, by the smallest change with which the row times
    the coarse near-null vectors is what it was.

    Args:
        p_indptr … threshold: see `smooth_rows`.
        near: near-null vectors in all coarse unknowns, shape (columns, k).
        width: coarse unknowns of a node; `near` has a multiple of it.
    """
    room = width * (len(p_values) + len(s_values))
    indptr, indices, values = np.zeros(len(p_indptr), np.int64), np.empty(room, np.int64), np.empty(room)
    _smooth_block_rows(p_indptr, p_indices, p_values, s_indptr, s_indices, s_values, weight, threshold,
                       np.ascontiguousarray(near), width, indptr, indices, values)
    return values[: indptr[-1]].copy(), indices[: indptr[-1]].copy(), indptr

"""Smoothing of the prolongation by exact local solves: P − ω M_RAS (A P), truncated, patch by patch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.patches.grow import LocalMatrix, Patches
from analogpde.tile.blocks import Blocks
from analogpde.tile.factors import factorise

Rows = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]
"""Sparse rows: offsets, columns, values."""

_CHUNK = 128  # patches solved at a time; all their factors in FP64 would need more memory than the tiles
_LANES = 8  # columns solved side by side


@compiled
def _lanes(y, q):
    return y[q, 0], y[q, 1], y[q, 2], y[q, 3], y[q, 4], y[q, 5], y[q, 6], y[q, 7]


@compiled
def _subtract(y, q, a, v):
    """y[q] −= a v, lane by lane; all is read before anything is written, so that vector registers serve."""
    q = np.uint64(q)  # a signed one would be tried for counting from the end
    c = _lanes(y, q)
    y[q, 0], y[q, 1], y[q, 2], y[q, 3] = c[0] - a * v[0], c[1] - a * v[1], c[2] - a * v[2], c[3] - a * v[3]
    y[q, 4], y[q, 5], y[q, 6], y[q, 7] = c[4] - a * v[4], c[5] - a * v[5], c[6] - a * v[6], c[7] - a * v[7]


@compiled
def _subtract_two(y, q, a, v, b, u):
    """y[q] −= a v and then −= b u, lane by lane."""
    q = np.uint64(q)
    c = _lanes(y, q)
    y[q, 0], y[q, 1] = c[0] - a * v[0] - b * u[0], c[1] - a * v[1] - b * u[1]
    y[q, 2], y[q, 3] = c[2] - a * v[2] - b * u[2], c[3] - a * v[3] - b * u[3]
    y[q, 4], y[q, 5] = c[4] - a * v[4] - b * u[4], c[5] - a * v[5] - b * u[5]
    y[q, 6], y[q, 7] = c[6] - a * v[6] - b * u[6], c[7] - a * v[7] - b * u[7]


@compiled
def _scale(y, q, a):
    q = np.uint64(q)
    c = _lanes(y, q)
    y[q, 0], y[q, 1], y[q, 2], y[q, 3] = a * c[0], a * c[1], a * c[2], a * c[3]
    y[q, 4], y[q, 5], y[q, 6], y[q, 7] = a * c[4], a * c[5], a * c[6], a * c[7]


@compiled
def _substitute(lower, upper, diagonal, n, w, y):
    """Solve L U y = y for eight columns; the place t is y[w + t], the w rows on either side are room.

    Two columns of the factors at a time: half the traffic of y.
    """
    j = 0
    while j + 1 < n and w > 0:
        v = _lanes(y, w + j)
        _subtract(y, w + j + 1, lower[j, 0], v)
        u = _lanes(y, w + j + 1)
        for i in range(1, w):
            _subtract_two(y, w + j + 1 + i, lower[j, i], v, lower[j + 1, i - 1], u)
        _subtract(y, 2 * w + j + 1, lower[j + 1, w - 1], u)
        j += 2
    j = n - 1
    while j > 0 and w > 0:
        _scale(y, w + j, diagonal[j])
        v = _lanes(y, w + j)
        _subtract(y, w + j - 1, upper[j, w - 1], v)
        _scale(y, w + j - 1, diagonal[j - 1])
        u = _lanes(y, w + j - 1)
        for i in range(w - 1):
            _subtract_two(y, j + i, upper[j, i], v, upper[j - 1, i + 1], u)
        _subtract(y, j - 1, upper[j - 1, 0], u)
        j -= 2
    while j >= 0:
        _scale(y, w + j, diagonal[j])
        j -= 1


@compiled
def _find(index, core, size, first, indptr, indices, values, p_indptr, p_indices, width, mark, nodes):
    """List the coarse nodes that a patch's right-hand sides or its core's rows of P have; mark them."""
    count = 0
    for t in range(size):
        i = index[t]
        for e in range(indptr[i], indptr[i + 1]):
            if values[e] != 0.0:
                c = indices[e] if width == 1 else indices[e] // width
                if mark[c] < 0:
                    mark[c] = count
                    nodes[count] = c
                    count += 1
    for t in range(core):
        i = index[t] - first
        for e in range(p_indptr[i], p_indptr[i + 1]):
            c = p_indices[e] if width == 1 else p_indices[e] // width
            if mark[c] < 0:
                mark[c] = count
                nodes[count] = c
                count += 1
    return count


@compiled
def _most_entries(index, core, size, first, indptr, indices, values, p_indptr, p_indices, width, mark, nodes):
    """Bound the entries of the smoothed rows of some patches."""
    total = 0
    for k in range(size.size):
        count = _find(index[k], core[k], size[k], first, indptr, indices, values, p_indptr, p_indices, width, mark,
                      nodes)
        for s in range(count):
            mark[nodes[s]] = -1
        total += core[k] * count * width
    return total


@compiled
def _truncate(value, nodes, count, threshold, out_indices, out_values, total):
    """Write what stays of a row, rescaled to the sum of all; return how many entries there are then."""
    sum_all, largest = 0.0, 0.0
    for s in range(count):
        sum_all += value[s]
        largest = max(largest, abs(value[s]))
    sum_kept, end = 0.0, total
    for s in range(count):
        if value[s] != 0.0 and abs(value[s]) >= threshold * largest:
            sum_kept += value[s]
            out_indices[end], out_values[end] = nodes[s], value[s]
            end += 1
    factor = sum_all / sum_kept if abs(sum_kept) > 1e-3 * largest else 1.0
    for e in range(total, end):
        out_values[e] *= factor
    return end


@compiled
def _truncate_nodes(value, nodes, count, width, threshold, near, keep, out_indices, out_values, total):
    """Write what stays of a row by coarse nodes, changed so that the row times `near` stays; return the end."""
    vectors = near.shape[1]
    gram, lost = np.zeros((vectors, vectors)), np.zeros(vectors)
    largest = 0.0
    for s in range(count * width):
        largest = max(largest, abs(value[s]))
    kept, dropped = 0, 0
    for s in range(count):
        most = 0.0
        for c in range(width):
            most = max(most, abs(value[s * width + c]))
        keep[s] = most > 0.0 and most >= threshold * largest
        kept += keep[s]
        dropped += most > 0.0 and not keep[s]
        for c in range(width):
            b = near[nodes[s] * width + c]
            for u in range(vectors):
                if keep[s]:
                    for v in range(vectors):
                        gram[u, v] += b[u] * b[v]
                else:
                    lost[u] += value[s * width + c] * b[u]
    if kept > 0 and dropped > 0:  # the smallest change of what is kept that brings back the near-null vectors
        size = 0.0
        for u in range(vectors):
            size = max(size, gram[u, u])
        for u in range(vectors):
            gram[u, u] += 1e-12 * size
        lost = np.linalg.solve(gram, lost)
    else:
        lost[:] = 0.0
    for s in range(count):
        for c in range(width if keep[s] else 0):
            x = value[s * width + c]
            for u in range(vectors):
                x += near[nodes[s] * width + c, u] * lost[u]
            if x != 0.0:
                out_indices[total], out_values[total] = nodes[s] * width + c, x
                total += 1
    return total


@compiled
def _smooth(data, members, base, widths, heights, rows, cols, sizes, index, core, first, indptr, indices, values,
            p_indptr, p_indices, p_values, weight, threshold, near, width, mark, nodes, begin, length, out_indices,
            out_values):
    """Smooth the rows of P in the cores of some patches, given their factors; return the number of entries written.

    Row i of the owned ones begins at begin[i] and has length[i] entries.
    """
    n_max, longest, widest = index.shape[1], 0, 0
    for g in range(base.size):
        longest, widest = max(longest, heights[g]), max(widest, widths[g])
    lower, upper = np.empty((longest, max(1, widest))), np.empty((longest, max(1, widest)))
    diagonal, place, at = np.empty(longest), np.empty(n_max, np.int64), np.empty(n_max, np.int64)
    y = np.empty((1, longest + 2 * widest, _LANES))
    value, keep = np.empty(_LANES), np.empty(_LANES, np.bool_)
    total = 0
    for g in range(base.size):
        w, height = widths[g], heights[g]
        for lane in range(members.shape[1]):
            k = members[g, lane]
            if k < 0 or core[k] == 0:
                continue
            n = sizes[k]
            count = _find(index[k], core[k], n, first, indptr, indices, values, p_indptr, p_indices, width, mark, nodes)
            nodes[:count].sort()
            for s in range(count):
                mark[nodes[s]] = s
            batches = (count * width + _LANES - 1) // _LANES
            if batches > y.shape[0]:
                y = np.empty((batches, longest + 2 * widest, _LANES))
                value, keep = np.empty(batches * _LANES), np.empty(batches * _LANES, np.bool_)
            y[:batches, : n + 2 * w] = 0.0
            for t in range(n):
                place[rows[k, t]], at[cols[k, t]] = t, t
            for t in range(n):
                i = index[k, t]
                for e in range(indptr[i], indptr[i + 1]):
                    if values[e] != 0.0:
                        c = indices[e]
                        s = mark[c] if width == 1 else mark[c // width] * width + c % width
                        y[s // _LANES, w + place[t], s % _LANES] += values[e]
            for j in range(n):
                start = base[g] + 2 * w * j
                for i in range(w):
                    lower[j, i] = data[start + i, lane]
                    upper[j, i] = data[start + w + i, lane]
                diagonal[j] = data[base[g] + 2 * w * height + j, lane]
            for b in range(batches):
                _substitute(lower, upper, diagonal, n, w, y[b])
            for t in range(core[k]):
                i = index[k, t] - first
                for s in range(count * width):
                    value[s] = -weight * y[s // _LANES, w + at[t], s % _LANES]
                for e in range(p_indptr[i], p_indptr[i + 1]):
                    c = p_indices[e]
                    value[mark[c] if width == 1 else mark[c // width] * width + c % width] += p_values[e]
                begin[i] = total
                if width == 1:
                    total = _truncate(value, nodes, count, threshold, out_indices, out_values, total)
                else:
                    total = _truncate_nodes(value, nodes, count, width, threshold, near, keep, out_indices, out_values,
                                            total)
                length[i] = total - begin[i]
            for s in range(count):
                mark[nodes[s]] = -1
    return total


@compiled
def _copy_rows(index, core, first, begin, indices, values, out_indptr, out_indices, out_values):
    """Copy the rows of some patches' cores to where the whole matrix has them."""
    for k in range(core.size):
        for t in range(core[k]):
            i = index[k, t] - first
            start = out_indptr[i]
            for e in range(out_indptr[i + 1] - start):
                out_indices[start + e], out_values[start + e] = indices[begin[i] + e], values[begin[i] + e]


def smooth(
    matrix: LocalMatrix, patches: Patches, blocks: Blocks, product: Rows, p: Rows, *, weight: float, threshold: float,
    near: NDArray[np.float64], shift: float = 0.0,
) -> Rows:
    """Return P − weight M_RAS (A P), truncated, M_RAS the exact restricted additive Schwarz operator.

    With one near-null vector, entries below `threshold` of their row's largest magnitude are dropped and the row is
    rescaled to its sum, so that constants stay in the range of P. With several, whole coarse nodes are dropped, and
    what is dropped of a row is made good in the entries that stay, by the smallest change with which the row times the
    coarse near-null vectors is what it was.

    Args:
        matrix, patches: of this rank.
        blocks: of the patches, from `cut_blocks`. A part without any border is singular; its diagonal is enlarged by
            1e-12, for A P is zero there and so must the solution be.
        product: A P in the rows that this rank sees.
        p: P in the owned rows.
        weight, threshold: see above.
        near: near-null vectors in all coarse unknowns, shape (columns, k); a coarse node is k unknowns.
        shift: what to enlarge the blocks' diagonals by, relative, beyond that: as much as the tiles' are.

    Returns:
        The owned rows, columns sorted.
    """
    width = near.shape[1]
    near = np.ascontiguousarray(near)
    nodes = len(near) // width
    mark, found = np.full(nodes, -1, np.int64), np.empty(nodes, np.int64)
    begin, length = np.zeros(matrix.owned, np.int64), np.zeros(matrix.owned, np.int64)
    value = np.where(blocks.row == blocks.col, (1.0 + shift + 1e-12) * blocks.value, blocks.value)
    regular = replace(blocks, value=value)
    parts = []
    for start in range(0, patches.count, _CHUNK):
        part = slice(start, min(start + _CHUNK, patches.count))
        groups = factorise(regular.select(np.arange(part.start, part.stop)), np.float64).groups
        index, core, size = patches.index[part], patches.core[part], patches.size[part]
        room = _most_entries(index, core, size, matrix.first, *product, *p[:2], width, mark, found)
        indices, values = np.empty(room, p[1].dtype), np.empty(room)
        data, members, base, widths, heights, rows, cols, sizes = groups.arrays
        total = _smooth(data, members, base, widths, heights, rows, cols, sizes, index, core, matrix.first, *product,
                        *p, weight, threshold, near, width, mark, found, begin, length, indices, values)
        parts.append((part, indices[:total].copy(), values[:total].copy()))
    indptr = np.concatenate(([0], np.cumsum(length))).astype(np.int64)
    out_indices, out_values = np.empty(indptr[-1], p[1].dtype), np.empty(indptr[-1])
    for part, indices, values in parts:
        _copy_rows(patches.index[part], patches.core[part], matrix.first, begin, indices, values, indptr, out_indices,
                   out_values)
    return indptr, out_indices, out_values

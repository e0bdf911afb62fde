"""Smoothing of the prolongation by exact local solves: P − ω M_RAS (A P), truncated, patch by patch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.patches.grow import LocalMatrix, Patches
from analogpde.tile.band import COLUMNS, eliminate_band, solve_columns
from analogpde.tile.blocks import Blocks
from analogpde.tile.elimination import band_order
from analogpde.tile.factors import arrange
from analogpde.tile.lanes import LANES

Rows = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]
"""Sparse rows: offsets, columns, values."""

Orders = tuple[NDArray[np.int16], NDArray[np.int64]]
"""Of the blocks of patches: the row at each place of the elimination, shape (K, n), and the half bandwidth."""

_CHUNK = 512  # patches grouped at a time: neighbours stay near each other
# Of elimination without row exchanges of blocks with a unit diagonal: two of the sixteen digits of FP64
_LARGEST_MULTIPLIER = 100.0


def find_orders(blocks: Blocks) -> Orders:
    """Return in which order the rows of the patches' blocks, from `cut_blocks`, are eliminated."""
    order, width = np.zeros((blocks.count, blocks.size), np.int16), np.zeros(blocks.count, np.int64)
    band_order(blocks.offsets, blocks.row, blocks.col, blocks.sizes, order, width)
    return order, width


@compiled
def _solve_full(a, b):
    """Solve a x = b for the columns of b in place, with row exchanges; x = 0 where `a` is singular."""
    n = a.shape[0]
    for t in range(n):
        best = t
        for i in range(t + 1, n):
            if abs(a[i, t]) > abs(a[best, t]):
                best = i
        if not abs(a[best, t]) > 0.0:
            b[:] = 0.0
            return
        if best != t:
            for j in range(t, n):
                a[t, j], a[best, j] = a[best, j], a[t, j]
            for j in range(b.shape[1]):
                b[t, j], b[best, j] = b[best, j], b[t, j]
        for i in range(t + 1, n):
            factor = a[i, t] / a[t, t]
            if factor != 0.0:
                for j in range(t + 1, n):
                    a[i, j] -= factor * a[t, j]
                for j in range(b.shape[1]):
                    b[i, j] -= factor * b[t, j]
    for t in range(n - 1, -1, -1):
        for j in range(b.shape[1]):
            x = b[t, j]
            for i in range(t + 1, n):
                x -= a[t, i] * b[i, j]
            b[t, j] = x / a[t, t]


@compiled
def _grown(array, used, most):
    room = np.empty(most, array.dtype)
    room[:used] = array[:used]
    return room


@compiled
def _multiply(left, right, mark, indices, values):
    """Return the product of two sparse matrices without its zeros; the columns of a row are in no order.

    `indices` and `values` are room for it; what does not fit goes to new memory.
    """
    left_indptr, left_indices, left_values = left
    right_indptr, right_indices, right_values = right
    indptr = np.zeros(left_indptr.size, np.int64)
    total = 0
    for i in range(left_indptr.size - 1):
        start = total
        for e in range(left_indptr[i], left_indptr[i + 1]):
            factor, j = left_values[e], left_indices[e]
            if factor == 0.0:
                continue
            if total + right_indptr[j + 1] - right_indptr[j] > indices.size:
                room = 2 * indices.size + right_indptr[j + 1] - right_indptr[j]
                indices, values = _grown(indices, total, room), _grown(values, total, room)
            for f in range(right_indptr[j], right_indptr[j + 1]):
                c = right_indices[f]
                if mark[c] < start:
                    mark[c] = total
                    indices[total], values[total] = c, factor * right_values[f]
                    total += 1
                else:
                    values[mark[c]] += factor * right_values[f]
        end = start
        for e in range(start, total):
            mark[indices[e]] = -1
            if values[e] != 0.0:
                indices[end], values[end] = indices[e], values[e]
                end += 1
        total = end
        indptr[i + 1] = total
    return indptr, indices, values


@compiled
def _unsafe(band, n, w, largest):
    """Tell in which lanes elimination without row exchanges has lost digits, or met a zero."""
    unsafe = np.empty(LANES, np.bool_)
    for lane in range(LANES):
        unsafe[lane] = not largest[0, lane] <= _LARGEST_MULTIPLIER
    for i in range(n):
        for lane in range(LANES):
            unsafe[lane] = unsafe[lane] or not abs(band[(2 * w + 2) * i + w, lane]) < np.inf
    return unsafe


@compiled
def _truncate(value, nodes, count, threshold, out_indices, out_values, total):
    """Write what stays of a row, rescaled to the sum of all; return how many entries there are then."""
    sum_all, largest = 0.0, 0.0
    for s in range(count):
        sum_all += value[s]
        largest = max(largest, abs(value[s]))
    sum_kept, end = 0.0, total
    for s in range(count):
        stays = value[s] != 0.0 and abs(value[s]) >= threshold * largest
        sum_kept += value[s] if stays else 0.0
        out_indices[end], out_values[end] = nodes[s], value[s]  # overwritten by the next if it does not stay
        end += stays
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
def _fill(band, order, size, w, lane, row, col, value, enlarged, at, scale):
    """Write a block, scaled to a unit diagonal and that enlarged, into its lane; find `scale` by rows of the block."""
    for t in range(size):
        at[order[t]] = t
        scale[t] = 1.0
    for e in range(row.size):
        if row[e] == col[e] and value[e] != 0.0:
            scale[row[e]] = 1.0 / np.sqrt(abs(value[e]))
    for e in range(row.size):
        entry = value[e] * (scale[row[e]] * scale[col[e]])
        t = at[row[e]]
        band[(2 * w + 1) * t + w + at[col[e]], lane] += entry * enlarged if row[e] == col[e] else entry


@compiled
def _touch(index, count, first, indptr, indices, values):
    """Read something of each row, so that memory fetches many of them at a time."""
    total = 0.0
    for t in range(count):
        e = indptr[index[t] - first]
        if e < values.size:
            total += indices[e] + values[e]
    return total


@compiled
def _larger_room(y, used, most):
    room = np.empty((most, y.shape[1], LANES))
    room[:used] = y[:used]
    return room


@compiled
def _solve_unsafe(order, size, w, row, col, value, enlarged, at, scale, y, columns, lane):
    """Solve for the columns of one lane with row exchanges, in place."""
    band = np.zeros(((2 * w + 2) * size, LANES))
    _fill(band, order, size, w, lane, row, col, value, enlarged, at, scale)
    full = np.zeros((size, size))
    for i in range(size):
        for j in range(max(0, i - w), min(size, i + w + 1)):
            full[i, j] = band[(2 * w + 2) * i + w + j - i, lane]
    right = np.empty((size, columns))
    for c in range(columns):
        for t in range(size):
            right[t, c] = y[c, w + t, lane]
    _solve_full(full, right)
    for c in range(columns):
        for t in range(size):
            y[c, w + t, lane] = right[t, c]


@compiled
def _smooth(members, widths, heights, order, index, core, size, first, offsets, row, col, entry, product, p, enlarged,
            weight, threshold, near, width, mark, nodes, begin, length, out_indices, out_values):
    """Smooth the rows of P in the cores of some patches; return their entries and how many there are.

    Row i of the owned ones begins at begin[i] and has length[i] entries. `mark` is −1 throughout.
    """
    product_indptr, product_indices, product_values = product
    p_indptr, p_indices, p_values = p
    longest, widest = 0, 0
    for g in range(widths.size):
        longest, widest = max(longest, heights[g]), max(widest, widths[g] + widths[g] % 2)
    band, largest = np.empty(((2 * widest + 2) * (longest + 1), LANES)), np.empty((1, LANES))
    y = np.empty((8 * COLUMNS, longest + 2 * widest, LANES))
    counts, at, scale = np.zeros(LANES, np.int64), np.empty(longest, np.int64), np.empty((LANES, longest))
    rank = np.empty(0, np.int64)
    value, keep = np.empty(0), np.empty(0, np.bool_)
    total, touched = 0, 0.0
    for g in range(widths.size):
        n, w, used = heights[g], widths[g] + widths[g] % 2, 0
        band[: (2 * w + 2) * (n + 1)] = 0.0
        for lane in range(LANES):
            k, count = members[g, lane], 0
            for t in range(size[k] if k >= 0 else 0, n):
                band[(2 * w + 2) * t + w, lane] = 1.0
            counts[lane] = 0
            if k < 0 or core[k] == 0:
                for t in range(size[k] if k >= 0 else 0):
                    band[(2 * w + 2) * t + w, lane] = 1.0
                continue
            touched += _touch(index[k], size[k], 0, *product) + _touch(index[k], core[k], first, *p)
            begin_k, end_k = offsets[k], offsets[k + 1]
            _fill(band, order[k], size[k], w, lane, row[begin_k: end_k], col[begin_k: end_k], entry[begin_k: end_k],
                  enlarged, at, scale[lane])
            for t in range(size[k]):
                i, unit = index[k, order[k, t]], scale[lane, order[k, t]]
                for e in range(product_indptr[i], product_indptr[i + 1]):
                    c = product_indices[e]
                    node = c if width == 1 else c // width
                    if mark[node] < 0:
                        mark[node], nodes[lane, count] = count, node
                        count += 1
                        if count * width > y.shape[0]:
                            y = _larger_room(y, used, 2 * count * width)
                        while used < count * width:
                            y[used, : n + 2 * w] = 0.0
                            used += 1
                    s = mark[node] if width == 1 else mark[node] * width + c % width
                    y[s, w + t, lane] = product_values[e] * unit
            for t in range(core[k]):
                i = index[k, t] - first
                for e in range(p_indptr[i], p_indptr[i + 1]):
                    node = p_indices[e] if width == 1 else p_indices[e] // width
                    if mark[node] < 0:
                        mark[node], nodes[lane, count] = count, node
                        count += 1
            for s in range(count):
                mark[nodes[lane, s]] = -1
            counts[lane] = count
        most = 0
        for lane in range(LANES):
            most = max(most, counts[lane])
        if -(-most * width // COLUMNS) * COLUMNS > y.shape[0]:
            y = _larger_room(y, used, most * width + COLUMNS)
        while used < most * width or used % COLUMNS:
            y[used, : n + 2 * w] = 0.0
            used += 1
        eliminate_band(band, n, w, largest)
        unsafe = _unsafe(band, n, w, largest)
        for lane in range(LANES):
            k = members[g, lane]
            if unsafe[lane] and k >= 0 and core[k] > 0:
                begin_k, end_k = offsets[k], offsets[k + 1]
                _solve_unsafe(order[k], size[k], w, row[begin_k: end_k], col[begin_k: end_k], entry[begin_k: end_k],
                              enlarged, at, scale[lane], y, used, lane)
        kept = y[: used if unsafe.any() else 0, w: w + n].copy()
        for c in range(0, used, COLUMNS):
            solve_columns(band, n, w, y[c], y[c + 1], y[c + 2], y[c + 3])
        for lane in range(LANES):
            if unsafe[lane]:
                y[:used, w: w + n, lane] = kept[:, :, lane]
        if most * width > value.size:
            value, keep = np.empty(2 * most * width), np.empty(2 * most * width, np.bool_)
            rank = np.empty(2 * most * width, np.int64)
        for lane in range(LANES):
            k, count = members[g, lane], counts[lane]
            if k < 0:
                continue
            if total + core[k] * count * width >= out_values.size:
                room = 2 * out_values.size + core[k] * count * width + 1
                out_indices, out_values = _grown(out_indices, total, room), _grown(out_values, total, room)
            for t in range(size[k]):
                at[order[k, t]] = t
            slots = rank[:count]
            slots[:] = np.argsort(nodes[lane, :count])
            found = nodes[lane, :count][slots]
            for s in range(count):
                mark[found[s]] = s
            for t in range(core[k]):
                i = index[k, t] - first
                factor, here = -weight * scale[lane, t], w + at[t]
                for s in range(count):
                    for c in range(width):
                        value[s * width + c] = factor * y[slots[s] * width + c, here, lane]
                for e in range(p_indptr[i], p_indptr[i + 1]):
                    c = p_indices[e]
                    value[mark[c] if width == 1 else mark[c // width] * width + c % width] += p_values[e]
                begin[i] = total
                if width == 1:
                    total = _truncate(value, found, count, threshold, out_indices, out_values, total)
                else:
                    total = _truncate_nodes(value, found, count, width, threshold, near, keep, out_indices, out_values,
                                            total)
                length[i] = total - begin[i]
            for s in range(count):
                mark[found[s]] = -1
    return out_indices, out_values, total, touched


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
    matrix: LocalMatrix, patches: Patches, blocks: Blocks, orders: Orders, left: Rows, right: Rows, p: Rows, *,
    weight: float, threshold: float, near: NDArray[np.float64], shift: float = 0.0,
) -> Rows:
    """Return P − weight M_RAS (A P), truncated, M_RAS the exact restricted additive Schwarz operator.

    With one near-null vector, entries below `threshold` of their row's largest magnitude are dropped and the row is
    rescaled to its sum, so that constants stay in the range of P. With several, whole coarse nodes are dropped, and
    what is dropped of a row is made good in the entries that stay, by the smallest change with which the row times the
    coarse near-null vectors is what it was.

    Args:
        matrix, patches: of this rank.
        blocks, orders: of the patches, from `cut_blocks` and `find_orders`. A part without any border is singular; the
            diagonals are enlarged by 1e-12, for A P is zero there and so must the solution be.
        left, right: A P in the rows that this rank sees is their product: these rows of A, all columns that this rank
            needs numbered anew, and P in these.
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
    mark, found = np.full(nodes, -1, np.int64), np.empty((LANES, nodes), np.int64)
    begin, length = np.zeros(matrix.owned, np.int64), np.zeros(matrix.owned, np.int64)
    # memory that NumPy asks for comes in huge pages, and is asked for once
    room = len(right[1]) + len(left[1])
    product = _multiply(left, right, np.full(len(near), -1, np.int64), np.empty(room, p[1].dtype), np.empty(room))
    order, half = orders
    parts: list[tuple[slice, int, int]] = []
    indices, values = np.empty(1, p[1].dtype), np.empty(1)
    kept_indices, kept_values, end = np.empty(0, p[1].dtype), np.empty(0), 0
    for start in range(0, patches.count, _CHUNK):
        part = slice(start, min(start + _CHUNK, patches.count))
        index, core, size = patches.index[part], patches.core[part], patches.size[part]
        members, widths, heights = arrange(half[part], size)
        indices, values, total, _ = _smooth(
            members, widths, heights, order[part], index, core, size, matrix.first, blocks.offsets[start:], blocks.row,
            blocks.col, blocks.value, product, p, 1.0 + shift + 1e-12, weight, threshold, near, width, mark, found,
            begin, length, indices, values)
        if end + total > len(kept_values):
            room = int(1.1 * (end + total) * patches.count / part.stop) + 1  # what is never written takes no memory
            more_indices, more_values = np.empty(room, p[1].dtype), np.empty(room)
            more_indices[:end], more_values[:end] = kept_indices[:end], kept_values[:end]
            kept_indices, kept_values = more_indices, more_values
        kept_indices[end : end + total], kept_values[end : end + total] = indices[:total], values[:total]
        parts.append((part, end, end + total))
        end += total
    indptr = np.concatenate(([0], np.cumsum(length))).astype(np.int64)
    out_indices, out_values = np.empty(indptr[-1], p[1].dtype), np.empty(indptr[-1])
    for part, first, last in parts:
        _copy_rows(patches.index[part], patches.core[part], matrix.first, begin, kept_indices[first:last],
                   kept_values[first:last], indptr, out_indices, out_values)
    return indptr, out_indices, out_values

"""Compiled kernels that list what INV tiles hold, for shots that eliminate them anew (`analogpde.tile.shots`)."""

from __future__ import annotations

import numpy as np

from analogpde.compiled import compiled
from analogpde.tile.lanes import LANES, larger, load, minus, minus_product, reciprocal, store

_NEGLIGIBLE = np.float32(2.0**-22)  # of the diagonal, which is one: what factors in FP32 make of a zero
_ZERO = np.float32(0.0)


@compiled
def _multiply_factors(data, base, n, w, band):  # type: ignore[no-untyped-def]
    """Form L U of a group within its band: entry (i, j) is band[(2 w + 1) i + w + j − i]; negated on the way."""
    high = 2 * w + 1
    band[: high * n] = _ZERO
    for t in range(n):
        last = min(w, n - 1 - t)
        for c in range(last + 1):
            if c == 0:
                upper = reciprocal(load(data, base + 2 * w * n + t))
            else:
                upper = load(data, base + 2 * w * (t + c) + 2 * w - c)
            place = high * t + w + c
            store(band, place, minus(load(band, place), upper))
            for i in range(1, last + 1):
                place = high * (t + i) + w - i + c
                store(band, place, minus_product(load(band, place), load(data, base + 2 * w * t + i - 1), upper))


@compiled
def _near_width(band, n, w, least, bound):  # type: ignore[no-untyped-def]
    """Return the smallest half bandwidth, at least `least`, outside which the entries of a row add up to `bound`."""
    high = 2 * w + 1
    outside = np.zeros((n, LANES), np.float32)
    for near in range(w, least, -1):
        for i in range(n):
            for lane in range(LANES):
                outside[i, lane] += abs(band[high * i + w - near, lane]) + abs(band[high * i + w + near, lane])
                if outside[i, lane] > bound:
                    return near
    return least


@compiled
def _mark_rows(band, n, w, largest, some):  # type: ignore[no-untyped-def]
    """Tell which rows hold anything that is not negligible, in some lane."""
    for i in range(n):
        store(largest, 0, load(largest, 1))
        found = load(largest, 0)
        for p in range((2 * w + 1) * i, (2 * w + 1) * (i + 1)):
            found = larger(found, load(band, p))
        store(largest, 0, found)
        some[i] = False
        for lane in range(LANES):
            some[i] = some[i] or largest[0, lane] > _NEGLIGIBLE


@compiled
def list_cells(data, members, group_base, group_width, group_size, offsets, row, col, deviation, drawn, stride, bound,  # type: ignore[no-untyped-def]
               near, first, value, spread, place, draw, far_first, far_value, far_place):
    """List what the tiles of each group hold, by rows of the elimination; return how many are near and far.

    Near is what lies within the half bandwidth near[g]: that of the cells, or more if the entries of a row beyond
    would add up to more than `bound`. Near entries of row i of group g are first[g, i] … first[g, i + 1] − 1: the
    value, the deviation of its read noise, its place in the band's row (see `analogpde.tile.shots`), and which of the
    group's draws it takes, of which each lane has `stride`. Far ones have a value and the place column · LANES + lane.
    Lanes without a drawn tile hold the identity. Groups that find no room in `value` or `far_value` are only counted.
    """
    most = 1
    for g in range(group_base.size):
        most = max(most, (2 * group_width[g] + 1) * group_size[g])
    band = np.empty((most, LANES), np.float32)
    longest = 0
    for k in range(offsets.size - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    cell = np.empty((LANES, longest), np.float32)
    largest, more = np.zeros((2, LANES), np.float32), np.empty(first.shape[1], np.bool_)
    count, end = 0, np.empty(first.shape[1], np.int64)
    far_count, far_end = 0, np.empty(first.shape[1], np.int64)
    for g in range(group_base.size):
        n, w = group_size[g], group_width[g]
        high = 2 * w + 1
        some = False
        for lane in range(LANES):
            some = some or (members[g, lane] >= 0 and drawn[members[g, lane]])
        near[g], first[g, :], far_first[g, :] = 0, count, far_count
        if not some:
            continue
        _multiply_factors(data, group_base[g], n, w, band)
        least = 0
        for lane in range(LANES):
            k = members[g, lane]
            if k < 0 or not drawn[k]:
                band[: high * n, lane] = _ZERO
                for i in range(n):
                    band[high * i + w, lane] = np.float32(-1.0)
                continue
            for e in range(offsets[k], offsets[k + 1]):
                p = high * row[e] + w + col[e] - row[e]
                cell[lane, e - offsets[k]], band[p, lane] = -band[p, lane], _ZERO  # what stays is in no cell
                least = max(least, abs(row[e] - col[e]))
        near[g] = _near_width(band, n, w, least, bound)
        even = near[g] + near[g] % 2
        _mark_rows(band, n, w, largest, more)
        for again in range(2):  # count, then list
            if again:
                for i in range(n):
                    end[i], far_end[i] = first[g, i], far_first[g, i]
                if count > value.size or far_count > far_value.size:
                    break
            else:
                end[:], far_end[:] = 0, 0
            for lane in range(LANES):
                k = members[g, lane]
                if k >= 0 and drawn[k]:
                    for e in range(offsets[k], offsets[k + 1]):
                        i = row[e]
                        if again:
                            here = end[i]
                            value[here], spread[here] = cell[lane, e - offsets[k]], deviation[e]
                            place[here], draw[here] = (col[e] - i + even) * LANES + lane, lane * stride + e - offsets[k]
                        end[i] += 1
            for i in range(n):
                for p in range(max(0, w - i) if more[i] else high, min(high, w + n - i)):
                    for lane in range(LANES):
                        entry = -band[high * i + p, lane]
                        if not abs(entry) > _NEGLIGIBLE:
                            continue
                        if abs(p - w) > near[g]:
                            if again:
                                far_value[far_end[i]], far_place[far_end[i]] = entry, (i + p - w) * LANES + lane
                            far_end[i] += 1
                        else:
                            if again:
                                here = end[i]
                                value[here], spread[here], draw[here] = entry, _ZERO, 0
                                place[here] = (p + even - w) * LANES + lane
                            end[i] += 1
            if not again:
                for i in range(n):
                    first[g, i], far_first[g, i] = count, far_count
                    count, far_count = count + end[i], far_count + far_end[i]
                first[g, n:], far_first[g, n:] = count, far_count
    return count, far_count


@compiled
def sort_by_diagonals(offsets, row, col, deviation, new_row, new_col, variance):  # type: ignore[no-untyped-def]
    """Sort each tile's cells by diagonals, where no row or column follows itself: sums then need not wait."""
    longest = 0
    for k in range(offsets.size - 1):
        for e in range(offsets[k], offsets[k + 1]):
            longest = max(longest, row[e], col[e])
    end = np.empty(2 * longest + 3, np.int64)
    for k in range(offsets.size - 1):
        end[:] = 0
        for e in range(offsets[k], offsets[k + 1]):
            end[longest + col[e] - row[e] + 1] += 1
        end[0] += offsets[k]
        for d in range(end.size - 1):
            end[d + 1] += end[d]
        for e in range(offsets[k], offsets[k + 1]):
            d = longest + col[e] - row[e]
            new_row[end[d]], new_col[end[d]], variance[end[d]] = row[e], col[e], deviation[e] ** 2
            end[d] += 1

"""Compiled kernels of INV shots: what the tiles hold plus the read noise of this shot, eliminated anew every time.

Where read noise matters beyond first order every shot has a matrix of its own, Ĝ + E. Its band is narrow (a patch of a
mesh, ordered), and eight tiles are eliminated side by side: for a five-point stencil on 128 rows that takes as long as
two or three substitutions with stored factors.
"""

from __future__ import annotations

import math

import numpy as np

from analogpde.compiled import compiled
from analogpde.tile.band import eliminate_rows
from analogpde.tile.kernels import fill_bits, fill_read, look_up, settle
from analogpde.tile.lanes import LANES, load, minus_product, product, store

LARGEST_MULTIPLIER = np.float32(100.0)  # of elimination without row exchanges: two of the seven digits of FP32
_MOST_STEPS = 8  # to take in entries beyond the band
_SETTLED = np.float32(2.0**-22)  # of the largest answer: what FP32 loses in a sum
_LARGEST_POWER = 1000  # block exponents beyond 2^±1000 are cut: their inverse must be a number
_ZERO = np.float32(0.0)
_EXPONENT = 0x7FFFFFFFFFFFFFFF  # all bits of a double but its sign


@compiled
def _hold_row(row, value, spread, place, draw, bits):  # type: ignore[no-untyped-def]
    """Write a row of Ĝ + E of eight tiles: entry (i, j) of a lane is at (w + j − i) LANES + lane, w even."""
    row[:] = _ZERO
    for e in range(value.size):
        row[place[e]] = value[e] + spread[e] * look_up(bits[draw[e]])


@compiled
def _hold(band, n, w, ends, value, spread, place, draw, bits):  # type: ignore[no-untyped-def]
    """Write all rows of Ĝ + E, each 2 w + 2 vectors long, the last of them zero."""
    high = (2 * w + 2) * LANES
    flat = band.reshape(-1)
    for i in range(n):
        a, b = ends[i], ends[i + 1]
        _hold_row(flat[high * i: high * i + high], value[a:b], spread[a:b], place[a:b], draw[a:b], bits)


@compiled
def _eliminate(band, n, w, ends, value, spread, place, draw, bits):  # type: ignore[no-untyped-def]
    """Write Ĝ + E as `_hold` does and factorise it, without row exchanges: L below the inverted pivots, U above.

    Two rows at a time, as they are written, so that the w rows above, which are all that is needed, stay in the cache;
    w is even.

    Returns:
        The largest multiplier of each tile: where it is large, so are rounding errors.
    """
    high = 2 * w + 2
    flat = band.reshape(-1)
    flat[high * LANES * n: high * LANES * (n + 1)] = _ZERO  # the second of the last two rows where n is odd
    largest = load(band, high * n)
    for i in range(0, n, 2):
        for r in range(i, min(i + 2, n)):
            a, b, start = ends[r], ends[r + 1], high * LANES * r
            _hold_row(flat[start: start + high * LANES], value[a:b], spread[a:b], place[a:b], draw[a:b], bits)
        largest = eliminate_rows(band, n, w, i, largest)
    return largest


@compiled
def _solve_band(band, n, w, y, transposed):  # type: ignore[no-untyped-def]
    """Solve with the factors of `_eliminate` in place; the w rows of y on either side are room, zero."""
    high = 2 * w + 2
    if transposed:
        for i in range(n):
            v = product(load(y, w + i), load(band, high * i + w))
            store(y, w + i, v)
            for c in range(1, w + 1):
                store(y, w + i + c, minus_product(load(y, w + i + c), load(band, high * i + w + c), v))
        for i in range(n - 1, -1, -1):
            v = load(y, w + i)
            for c in range(max(0, w - i), w):
                store(y, i + c, minus_product(load(y, i + c), load(band, high * i + c), v))
        return
    for i in range(n):
        v = load(y, w + i)
        for c in range(w):
            v = minus_product(v, load(band, high * i + c), load(y, i + c))
        store(y, w + i, v)
    for i in range(n - 1, -1, -1):
        v = load(y, w + i)
        for c in range(w, 0, -1):
            v = minus_product(v, load(band, high * i + w + c), load(y, w + i + c))
        store(y, w + i, product(v, load(band, high * i + w)))


@compiled
def _subtract_far(ends, value, place, x, transposed, y):  # type: ignore[no-untyped-def]
    """y −= F x for the entries F beyond the band, x and y of shape (n, LANES)."""
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(ends.size - 1):
        for e in range(ends[i], ends[i + 1]):
            p = np.int64(place[e])
            q = i * LANES + p % LANES
            if transposed:
                p, q = q, p
            out[q] -= value[e] * flat[p]


@compiled
def _correct(band, n, w, ends, value, place, b, transposed, y, late):  # type: ignore[no-untyped-def]
    """Go from (band) x = b to (band + F) x = b, x ← (band)⁻¹ (b − F x), and tell of which tiles it is `late`.

    Each step is a factor smaller than the one before, the first of them by its size in x: so many are taken until what
    the next one would change is below FP32. Where that is not soon, the draw has come close to a singular matrix.
    """
    x, before = y[w: w + n].copy(), np.ones(LANES, np.float32)
    for _ in range(_MOST_STEPS):
        y[w: w + n] = b[:n]
        _subtract_far(ends, value, place, x, transposed, y[w: w + n])
        _solve_band(band, n, w, y, transposed)
        done = True
        for lane in range(LANES):
            size, change = _ZERO, _ZERO
            for t in range(n):
                size, change = max(size, abs(x[t, lane])), max(change, abs(y[w + t, lane] - x[t, lane]))
            change = change / size if size > _ZERO else _ZERO
            late[lane] = late[lane] and before[lane] * _SETTLED < change * change
            done, before[lane] = done and not late[lane], change
        if done:
            break
        x[:] = y[w: w + n]


@compiled
def _solve_full(band, w, lane, size, far_ends, far_value, far_place, bias, k, order, transposed, right, solution):  # type: ignore[no-untyped-def]
    """Solve for one tile of the group that `_hold` wrote, with row exchanges; write to `solution`."""
    matrix, start = np.zeros((size, size)), np.empty(size)
    for i in range(size):
        start[i] = right[i, lane]
        for j in range(max(0, i - w), min(size, i + w + 1)):
            matrix[i, j] = band[(2 * w + 2) * i + w + j - i, lane]
        for e in range(far_ends[i], far_ends[i + 1]):
            if far_place[e] % LANES == lane:
                matrix[i, far_place[e] // LANES] = far_value[e]
        if bias.shape[0] > 0:
            matrix[i] -= bias[k, order[i]]
    start = np.linalg.solve(matrix.T.copy() if transposed else matrix, start)
    for i in range(size):
        solution[i, lane] = start[i]


@compiled
def _add_bias(bias, rows, cols, n, transposed, x, lane, b):  # type: ignore[no-untyped-def]
    """Add to b what the bias cells' noise does to first order, η (1ᵀx), transposed 1 (ηᵀx)."""
    total = _ZERO
    for t in range(n):
        total += bias[cols[t]] * x[t, lane] if transposed else x[t, lane]
    for t in range(n):
        b[t, lane] += total if transposed else bias[rows[t]] * total


@compiled
def _take_bias(bias, cols, n, transposed, x, lane, z):  # type: ignore[no-untyped-def]
    """Go from A x = b to (A − η1ᵀ) x = b with z = A⁻¹η, transposed z = A⁻ᵀ1, by Sherman and Morrison."""
    top, bottom = 0.0, 1.0
    for t in range(n):
        weight = np.float64(bias[cols[t]]) if transposed else 1.0
        top, bottom = top + weight * x[t, lane], bottom - weight * z[t, lane]
    for t in range(n):
        x[t, lane] += np.float32(top / bottom) * z[t, lane]


@compiled
def _convert_in(x, scale, order, n, codes, work, single, b, lane):  # type: ignore[no-untyped-def]
    """Scale what drives a tile, round it to the DACs' codes and put it in its lane; return the block exponent's power.

    Tiles work in FP32, the vector's size must not matter.
    """
    bits = work.view(np.int64)
    for i in range(n):
        work[i] = x[i] * scale[i]
    top = np.int64(0)
    for i in range(n):  # as integers, which have an order that the compiler may use
        top = max(top, bits[i] & np.int64(_EXPONENT))
    bits[n] = top
    largest = work[n]
    power = back = 1.0
    if 0.0 < largest < np.inf:
        exponent = max(min(math.frexp(largest)[1] - 1, _LARGEST_POWER), -_LARGEST_POWER)
        power, back = math.ldexp(1.0, exponent), math.ldexp(1.0, -exponent)
        largest *= back
    for i in range(n):
        single[i] = work[i] * back
    if codes > 0 and 0.0 < largest < np.inf:
        _round(single, n, largest, codes)
    for t in range(n):
        b[t, lane] = single[order[t]]
    return power


@compiled
def _round(single, n, largest, codes):  # type: ignore[no-untyped-def]
    """Round to codes of the largest magnitude."""
    step, steps = np.float32(largest / codes), np.float32(codes / largest)
    for i in range(n):
        single[i] = np.rint(single[i] * steps) * step


@compiled
def _convert_out(solution, lane, order, n, kept, codes, factor, scale, single, x):  # type: ignore[no-untyped-def]
    """Round what a tile answers on the lines that are read to the ADCs' codes, and scale it back."""
    for t in range(n):
        single[order[t]] = solution[t, lane]
    if codes > 0:
        bits, top = single.view(np.int32), np.int32(0)
        for i in range(kept):
            top = max(top, bits[i] & np.int32(0x7FFFFFFF))
        bits[single.size - 1] = top
        largest = np.float64(single[single.size - 1])
        if 0.0 < largest:  # infinite ones become no numbers
            _round(single, kept, largest, codes)
    for i in range(kept):
        x[i] = single[i] * scale[i] * factor


@compiled
def _mark_numbers(x, begin, n, mark):  # type: ignore[no-untyped-def]
    """Write to mark[0] of each lane zero if all n of its values in x from `begin` are finite, or else no number."""
    mark[0] = _ZERO
    nothing = load(mark, 0)
    found = nothing
    for t in range(begin, begin + n):
        found = minus_product(found, load(x, t), nothing)
    store(mark, 0, found)


@compiled
def _add_products(row, col, weight, x, y):  # type: ignore[no-untyped-def]
    for e in range(row.size):
        y[row[e]] += weight[e] * x[col[e]]


@compiled
def shoot(data, members, group_base, group_width, group_size, rows, cols, sizes, kept, offsets, row, col, variances,  # type: ignore[no-untyped-def]
          drawn, near, first, value, spread, place, draw, far_first, far_value, far_place, stride, bias, scale, sign,
          dac, adc, seed, word, tiles, event, x, transposed):
    """One shot of every tile, in place on x (K, n); return the number of shots solved with row exchanges.

    Tiles that are `drawn` hold what `analogpde.tile.listing.list_cells` listed. Of the others with read noise
    x − Ĝ⁻¹ξ is taken, ξ_i normal of variance Σ_j σ_ij² x_j²: row, col are places (not rows) of their cells, `variances`
    their σ². With a bias column row i of each matrix is less by η_i, `bias` (no rows without): a rank of one. A
    transposed shot drives the columns and reads the rows: the caller exchanges rows and cols, row and col.
    """
    n_max = rows.shape[1]
    longest = most = 0
    for g in range(group_base.size):
        longest = max(longest, group_size[g] + 2 * group_width[g])
        if first[g, n_max] > first[g, 0]:
            most = max(most, (2 * near[g] + 4) * (group_size[g] + 1))
    y = np.zeros((longest + 2, LANES), np.float32)
    b, solution = np.zeros((n_max, LANES), np.float32), np.zeros((n_max, LANES), np.float32)
    band, largest = np.zeros((most, LANES), np.float32), np.zeros((1, LANES), np.float32)
    numbers_in, numbers_out = np.empty((1, LANES), np.float32), np.empty((1, LANES), np.float32)
    words, normal = np.zeros(LANES * stride // 2, np.uint32), np.empty(n_max, np.float32)
    few, bits = np.empty(n_max // 2 + 4, np.uint32), words.view(np.uint16)
    work, single, variance = np.empty(n_max + 1), np.empty(n_max + 1, np.float32), np.empty(n_max, np.float32)
    quiet = np.empty((n_max if bias.shape[0] > 0 else 0, LANES), np.float32)
    power, late = np.ones(LANES), np.zeros(LANES, np.bool_)
    exchanged = 0
    for g in range(group_base.size):
        n, w = group_size[g], group_width[g]
        inside = y[w: w + n]
        cells, linewise, plain = first[g, n] > first[g, 0], False, False
        for lane in range(LANES):
            k = members[g, lane]
            b[:n, lane] = _ZERO
            if k < 0:
                continue
            power[lane] = _convert_in(x[k], scale[k], rows[k], sizes[k], dac, work, single, b, lane)
            if not drawn[k]:
                plain = True
                linewise = linewise or offsets[k + 1] > offsets[k]
        if plain:
            inside[:] = b[:n]
            settle(data, group_base[g], n, w, y, transposed)
            solution[:n] = inside
        if linewise:
            inside[:] = b[:n]
            for lane in range(LANES):
                k = members[g, lane]
                if k >= 0 and not drawn[k] and offsets[k + 1] > offsets[k]:
                    variance[:n] = _ZERO
                    single[:n] = solution[:n, lane] ** 2
                    _add_products(row[offsets[k]: offsets[k + 1]], col[offsets[k]: offsets[k + 1]],
                                  variances[offsets[k]: offsets[k + 1]], single, variance)
                    fill_read(normal, few, sizes[k], seed, word, tiles[k], event)
                    for t in range(sizes[k]):
                        inside[t, lane] -= np.sqrt(variance[t]) * normal[t]
                    if bias.shape[0] > 0:
                        _add_bias(bias[k], rows[k], cols[k], sizes[k], transposed, solution, lane, inside)
            settle(data, group_base[g], n, w, y, transposed)
            solution[:n] = inside
        if cells:
            for lane in range(LANES):
                k = members[g, lane]
                if k >= 0 and drawn[k]:
                    fill_bits(words[lane * stride // 2:], offsets[k + 1] - offsets[k], seed, word, tiles[k], event)
            even = near[g] + near[g] % 2
            store(largest, 0, _eliminate(band, n, even, first[g], value, spread, place, draw, bits))
            y[: 2 * even + n] = _ZERO
            y[even: even + n] = b[:n]
            _solve_band(band, n, even, y, transposed)
            held = False
            late[:] = False
            if far_first[g, n] > far_first[g, 0]:
                late[:] = True
                _correct(band, n, even, far_first[g, : n + 1], far_value, far_place, b, transposed, y, late)
            if bias.shape[0] > 0:
                quiet[:n] = y[even: even + n]
                y[: 2 * even + n] = _ZERO
                for lane in range(LANES):
                    k = members[g, lane]
                    if k >= 0 and drawn[k]:
                        for t in range(sizes[k]):
                            y[even + t, lane] = np.float32(1.0) if transposed else bias[k, rows[k, t]]
                _solve_band(band, n, even, y, transposed)
                for lane in range(LANES):
                    k = members[g, lane]
                    if k >= 0 and drawn[k]:
                        _take_bias(bias[k], cols[k], sizes[k], transposed, quiet, lane, y[even: even + n])
                y[even: even + n] = quiet[:n]
            _mark_numbers(y, even, n, numbers_out)
            _mark_numbers(b, 0, n, numbers_in)
            if plain:
                for lane in range(LANES):
                    k = members[g, lane]
                    for t in range(n if k >= 0 and drawn[k] else 0):
                        solution[t, lane] = y[even + t, lane]
            else:
                solution[:n] = y[even: even + n]
            for lane in range(LANES):
                k = members[g, lane]
                if k < 0 or not drawn[k]:
                    continue
                good = largest[0, lane] <= LARGEST_MULTIPLIER and not late[lane] and numbers_out[0, lane] == _ZERO
                if not good and numbers_in[0, lane] == _ZERO:  # what came in infinite goes out so
                    if not held:
                        _hold(band, n, even, first[g], value, spread, place, draw, bits)
                        held = True
                    exchanged += 1
                    _solve_full(band, even, lane, sizes[k], far_first[g], far_value, far_place, bias, k,
                                cols[k] if transposed else rows[k], transposed, b, solution)
        for lane in range(LANES):
            k = members[g, lane]
            if k >= 0:
                _convert_out(solution, lane, cols[k], sizes[k], kept[k], adc, sign[k] * power[lane], scale[k], single,
                             x[k])
    return exchanged

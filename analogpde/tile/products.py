"""Compiled kernels of open-loop products."""

from __future__ import annotations

import math

import numpy as np

from analogpde.compiled import compiled
from analogpde.tile.kernels import round_to_codes


@compiled
def _add_full(value, m, n, volts, current):  # type: ignore[no-untyped-def]
    """current += A volts for a full array, entries by driven line: m lines read, n driven.

    Eight driven lines at a time, but each sum in the order of the lines: to the last bit what entry by entry gives.
    """
    j = 0
    while j + 8 <= n:
        v0, v1, v2, v3 = volts[j], volts[j + 1], volts[j + 2], volts[j + 3]
        v4, v5, v6, v7 = volts[j + 4], volts[j + 5], volts[j + 6], volts[j + 7]
        a0, a1, a2, a3 = value[j * m:], value[(j + 1) * m:], value[(j + 2) * m:], value[(j + 3) * m:]
        a4, a5, a6, a7 = value[(j + 4) * m:], value[(j + 5) * m:], value[(j + 6) * m:], value[(j + 7) * m:]
        for i in range(m):
            c = (((current[i] + a0[i] * v0) + a1[i] * v1) + a2[i] * v2) + a3[i] * v3
            current[i] = (((c + a4[i] * v4) + a5[i] * v5) + a6[i] * v6) + a7[i] * v7
        j += 8
    while j < n:
        v0, a0 = volts[j], value[j * m: (j + 1) * m]
        for i in range(m):
            current[i] += a0[i] * v0
        j += 1


@compiled
def multiply(block, row_offsets, rows, col_offsets, cols, offsets, row, col, value, deviation, starts, full,  # type: ignore[no-untyped-def]
             full_variance, draws, bias, transposed, dac, adc, factor, x, y):
    """One shot of every open-loop array: y[block] += factor · A x[block]; of A the caller gives rows and columns.

    The cells' noise is one draw a line read, of variance Σ_j σ_ij² x_j²: exact, since a product is linear in them.

    Args:
        block … deviation: see `MvmBank`, rows and columns exchanged for a transposed product.
        starts: where a crowded array begins in `full` and `full_variance`, which hold an entry and the square of its
            deviation for every crossing, by driven line; −1 for an array of few entries.
        draws: standard normal numbers, one a line read, if there is noise.
        bias: read noise of the bias cells η, one a row of each array, if there are any: A − η1ᵀ is read. transposed:
            whether rows are driven.
        dac, adc: codes of the converters.
        factor, x, y: see above.
    """
    widest = tallest = 1
    for p in range(block.size):
        widest = max(widest, col_offsets[p + 1] - col_offsets[p])
        tallest = max(tallest, row_offsets[p + 1] - row_offsets[p])
    volts, current, variance, squares = np.empty(widest), np.empty(tallest), np.empty(tallest), np.empty(widest)
    for p in range(block.size):
        k = block[p]
        r, c = row_offsets[p], col_offsets[p]
        m, n = row_offsets[p + 1] - r, col_offsets[p + 1] - c
        begin, end = offsets[p], offsets[p + 1]
        largest = 0.0
        for j in range(n):
            volts[j] = x[k, cols[c + j]]
            largest = max(largest, abs(volts[j]))
        power = 1.0  # so that no square underflows
        if 0.0 < largest < np.inf:
            power = math.ldexp(1.0, math.frexp(largest)[1] - 1)
        for j in range(n):
            volts[j] /= power
        round_to_codes(volts[:n], dac)
        current[:m] = 0.0
        first = starts[p]
        crowded = first >= 0 and largest < np.inf  # 0 · ∞ is no zero
        if crowded:
            _add_full(full[first: first + m * n], m, n, volts, current)
        else:
            for e in range(begin, end):
                current[row[e]] += value[e] * volts[col[e]]
        if deviation.size > 0:
            variance[:m] = 0.0
            if crowded:
                for j in range(n):
                    squares[j] = volts[j] ** 2
                _add_full(full_variance[first: first + m * n], m, n, squares, variance)
            else:
                for e in range(begin, end):
                    variance[row[e]] += (deviation[e] * volts[col[e]]) ** 2
            for i in range(m):
                current[i] += np.sqrt(variance[i]) * draws[r + i]
        if bias.size > 0:
            total = 0.0
            for j in range(n):
                total += bias[c + j] * volts[j] if transposed else volts[j]
            for i in range(m):
                current[i] -= total if transposed else bias[r + i] * total
        round_to_codes(current[:m], adc)
        for i in range(m):
            y[k, rows[r + i]] += factor * power * current[i]

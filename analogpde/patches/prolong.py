"""Rows of the prolongation: one smoothing step, then truncation with row sums kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled


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

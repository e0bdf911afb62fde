"""Rows of other ranks' sparse matrices: asked for once, fetched as often as values change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled
from analogpde.patches.smooth import Rows
from analogpde.petsc.stack import MPI


@compiled
def number(indices, begin, end, outside, low, out):
    """Number global columns anew: `outside`, sorted, with the range begin … end − 1 after the first `low` of them."""
    for e in range(indices.size):
        c = indices[e]
        if begin <= c < end:
            out[e] = c - begin + low
            continue
        first, last = 0, outside.size
        while first < last:
            middle = (first + last) // 2
            if outside[middle] < c:
                first = middle + 1
            else:
                last = middle
        out[e] = first if first < low else first + end - begin


def beyond(indices: NDArray[np.integer], begin: int, end: int) -> NDArray[np.int64]:
    """Return which columns are not in the range, each once and sorted."""
    return np.unique(indices[(indices < begin) | (indices >= end)]).astype(np.int64)


def ghost_bytes(indices: NDArray[np.integer], begin: int, end: int) -> int:
    """Return how many bytes of a vector a product with rows of these columns is sent from other ranks."""
    return 8 * len(beyond(indices, begin, end))


def _taken(p: Rows, rows: NDArray[np.int64]) -> Rows:
    """Return some rows: their lengths, columns, values."""
    lengths = np.diff(p[0])[rows]
    entries = np.repeat(p[0][rows] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
    return lengths, p[1][entries], p[2][entries]


class Exchange:
    """Fetches rows that other ranks own. Collective.

    Args:
        comm: all ranks.
        begin: first row of this rank.
        wanted: global numbers of rows, sorted, none of this rank's.
    """

    def __init__(self, comm: MPI.Comm, begin: int, wanted: NDArray[np.int64]) -> None:
        self._comm = comm
        bounds = np.searchsorted(wanted, comm.allgather(begin))  # ranks without rows begin where the next one does
        bounds = np.append(bounds, len(wanted))
        asked = comm.alltoall([wanted[bounds[rank] : bounds[rank + 1]] for rank in range(comm.size)])
        self._asked = [rows - begin for rows in asked]

    def fetch(self, p: Rows) -> Rows:
        """Return the wanted rows of a matrix of which `p` are this rank's, CSR in global columns. Collective."""
        parts = self._comm.alltoall([_taken(p, rows) for rows in self._asked])
        lengths, indices, values = (np.concatenate([part[i] for part in parts]) for i in range(3))
        return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), indices, values


def between(p: Rows, others: Rows, low: int) -> Rows:
    """Return the rows `p` with `low` of the others before them and the rest behind, CSR."""
    split = others[0][low]
    offsets = (others[0][:low], p[0][:-1] + split, others[0][low:] + p[0][-1])
    return (np.concatenate(offsets).astype(np.int64), np.concatenate((others[1][:split], p[1], others[1][split:])),
            np.concatenate((others[2][:split], p[2], others[2][split:])))

"""Cores and patches: greedy growth along strong couplings, O(N) in the unknowns.

A core is the set of unknowns whose correction a tile delivers (restricted additive Schwarz); its patch
adds strongly coupled neighbours while they fit the tile. Greedy growth needs 0.25 s for a million
unknowns where k-way partitioners need 18 s and more, and the patches converge as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from analogpde.compiled import compiled

SMALL_TILE = 32
# Ratio of two diagonals beyond which coefficients jump. A smooth one changes by less from a node to the next.
UNLIKE = 1.5
# Couplings below this fraction of the largest of either row do not hold a core together.
NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class LocalMatrix:
    """The rows that one rank sees: its own and the layers of neighbours that patches may reach.

    Args:
        indptr, indices, values: CSR with columns outside the seen rows removed, n rows and columns.
        first, owned: this rank's own unknowns are first … first + owned − 1 of the local numbering.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: NDArray[np.float64]
    first: int
    owned: int

    @property
    def rows(self) -> int:
        """Rows seen, own and neighbours'."""
        return len(self.indptr) - 1


@dataclass(frozen=True)
class Patches:
    """K patches in local numbering, core unknowns first within each patch.

    Args:
        index: unknowns of each patch, shape (K, m), padded with −1.
        core: how many of them are the core, shape (K,).
        size: how many there are, shape (K,).
        label: core of each owned unknown, shape (owned,).
        coupled: whether a core needs a coarse unknown: False for cores of decoupled unknowns
            (Dirichlet rows), shape (K,).
    """

    index: NDArray[np.int64]
    core: NDArray[np.int32]
    size: NDArray[np.int32]
    label: NDArray[np.int64]
    coupled: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of patches K."""
        return len(self.core)


@compiled
def restrict(indptr, indices, values, number):
    """Return CSR rows without the columns whose `number` is negative, the others numbered so."""
    new_indptr = np.zeros(indptr.size, np.int64)
    new_indices, new_values = np.empty(indices.size, np.int64), np.empty(values.size)
    total = 0
    for i in range(indptr.size - 1):
        for e in range(indptr[i], indptr[i + 1]):
            if number[indices[e]] >= 0:
                new_indices[total], new_values[total] = number[indices[e]], values[e]
                total += 1
        new_indptr[i + 1] = total
    return new_indptr, new_indices[:total].copy(), new_values[:total].copy()


@compiled
def _entry(indptr, indices, values, i, j):
    """Return a_ij, 0 where it is not stored; the columns of a row are sorted."""
    low, high = indptr[i], indptr[i + 1]
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < j:
            low = middle + 1
        else:
            high = middle
    return values[low] if low < indptr[i + 1] and indices[low] == j else 0.0


@compiled
def coupling_strength(indptr, indices, values, signed=False):
    """Return max(|a_ij|, |a_ji|)/sqrt(|a_ii a_jj|) per entry (0 on the diagonal), and each row's largest.

    Both directions count: convection couples an unknown to its upstream neighbour only, but a core that is cut
    across the flow loses that coupling whichever end of it asks. If `signed`, couplings of the sign of the diagonal
    count a thousandth: they drive neighbours apart (central differences downstream, SUPG across the flow), and an
    unknown follows them only where it has no others. Columns must be sorted within a row.
    """
    n = indptr.size - 1
    diagonal = np.zeros(n)
    for i in range(n):
        diagonal[i] = abs(_entry(indptr, indices, values, i, i))
    largest_entry = diagonal.max() if n else 0.0
    unit = 1.0  # a power of two, so that no product of two entries overflows
    if 0.0 < largest_entry < np.inf:
        unit = math.ldexp(1.0, max(-1000, min(1000, -math.frexp(largest_entry)[1])))
    diagonal *= unit
    strength = np.zeros(values.size, np.float32)
    largest = np.zeros(n, np.float32)
    for i in range(n):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if j != i and diagonal[i] > 0 and diagonal[j] > 0:
                there, back = values[e], _entry(indptr, indices, values, j, i)
                if signed:
                    sign = 1.0 if _entry(indptr, indices, values, i, i) > 0.0 else -1.0
                    there *= -sign if there * sign < 0.0 else 1e-3
                    back *= -sign if back * sign < 0.0 else 1e-3
                size = unit * max(abs(there), abs(back))
                strength[e] = size / np.sqrt(diagonal[i] * diagonal[j])
                largest[i] = max(largest[i], strength[e])
    return strength, largest


@compiled
def _couplings(indptr, indices, values, first, owned, out):
    rows = indptr.size - 1
    diagonal = np.empty(rows)
    for i in range(rows):
        diagonal[i] = _entry(indptr, indices, values, i, i)
    for i in range(first, first + owned):
        sign = 1.0 if diagonal[i] > 0.0 else -1.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if j != i:
                out[0] += abs(values[e] - _entry(indptr, indices, values, j, i))
                out[1] += abs(values[e])
                out[2] += max(0.0, sign * values[e])
                out[3] += abs(diagonal[i]) > UNLIKE * abs(diagonal[j]) or abs(diagonal[j]) > UNLIKE * abs(diagonal[i])
                out[4] += 1.0


def measure_couplings(matrix: LocalMatrix) -> NDArray[np.float64]:
    """Return what a look at the couplings of the owned rows tells; sums, which add up over ranks.

    Returns:
        Σ|a_ij − a_ji|; Σ|a_ij|; Σ|a_ij| of those with the diagonal's sign; the number of couplings between unknowns
        whose diagonals differ by more than `UNLIKE`; the number of couplings.
    """
    out = np.zeros(5)
    _couplings(matrix.indptr, matrix.indices, matrix.values, matrix.first, matrix.owned, out)
    return out


@compiled
def _grow_cores(indptr, indices, strength, largest, threshold, first, owned, core, limit):
    """Label owned unknowns with cores of about `core`; stop after `limit` cores (0: no limit).

    The next unknown is the frontier's with the most links into the core; the next seed is the oldest
    left-over frontier unknown, so that cores tile the graph like a brick wall. Decoupled unknowns (no
    coupling above 1e-10) are packed together into cores of their own.
    """
    label = np.full(owned, -1, np.int64)
    links = np.zeros(owned, np.float32)
    stamp = np.full(owned, -1, np.int64)
    frontier = np.empty(owned, np.int64)
    queue = np.empty(owned, np.int64)
    queued = np.zeros(owned, np.bool_)
    head = tail = cursor = count = 0
    for i in range(owned):
        if largest[first + i] <= 1e-10:
            label[i] = -2
    while limit == 0 or count < limit:
        seed = -1
        while head < tail:
            if label[queue[head]] == -1:
                seed = queue[head]
                head += 1
                break
            head += 1
        if seed < 0:
            while cursor < owned and label[cursor] != -1:
                cursor += 1
            if cursor == owned:
                break
            seed = cursor
        frontier[0], n_frontier, size = seed, 1, 0
        stamp[seed], links[seed] = count, 0.0
        while n_frontier > 0 and size < core:
            best = 0
            for t in range(1, n_frontier):
                if links[frontier[t]] > links[frontier[best]]:
                    best = t
            v = frontier[best]
            for t in range(best, n_frontier - 1):  # keep the order of arrival: it breaks ties breadth first
                frontier[t] = frontier[t + 1]
            n_frontier -= 1
            label[v] = count
            size += 1
            row = first + v
            for e in range(indptr[row], indptr[row + 1]):
                u = indices[e] - first
                if u < 0 or u >= owned or label[u] != -1:
                    continue
                j = indices[e]
                if strength[e] <= 0.0 or strength[e] < threshold * min(largest[row], largest[j]):
                    continue
                if stamp[u] != count:
                    stamp[u], links[u] = count, 0.0
                    frontier[n_frontier] = u
                    n_frontier += 1
                links[u] += 1.0
        for t in range(n_frontier):
            if not queued[frontier[t]]:
                queued[frontier[t]] = True
                queue[tail] = frontier[t]
                tail += 1
        count += 1
    return label, count


@compiled
def _merge_small(indptr, indices, strength, largest, threshold, first, label, count, lowest, highest):
    """Move the unknowns of small cores to the neighbouring core they are most coupled to, if it has room.

    Not along negligible couplings: a stiff island and the strip beside it do not share a coarse unknown.
    """
    owned = label.size
    sizes = np.zeros(count, np.int64)
    for i in range(owned):
        if label[i] >= 0:
            sizes[label[i]] += 1
    moved, forth = True, False
    while moved:  # ends: nobody leaves a core that is large enough, and no others are joined
        moved, forth = False, not forth  # there and back, so that long leftovers need few sweeps
        for t in range(owned):
            i = t if forth else owned - 1 - t
            a = label[i]
            if a < 0 or sizes[a] >= lowest:
                continue
            best, best_link = -1, 0.0
            row = first + i
            for e in range(indptr[row], indptr[row + 1]):
                u = indices[e] - first
                if u < 0 or u >= owned or label[u] < 0 or label[u] == a:
                    continue
                if strength[e] < threshold * min(largest[row], largest[indices[e]]):
                    continue
                b = label[u]
                if sizes[b] < lowest or sizes[b] >= highest:
                    continue
                link = 0.0
                for f in range(indptr[row], indptr[row + 1]):
                    w = indices[f] - first
                    if 0 <= w < owned and label[w] == b:
                        link += strength[f]
                if link > best_link:
                    best, best_link = b, link
            if best >= 0:
                label[i] = best
                sizes[a] -= 1
                sizes[best] += 1
                moved = True


@compiled
def _number(label, count, pack):
    """Renumber cores in order of their first unknown; pack decoupled unknowns (−2) into cores of `pack`."""
    fresh = np.full(count, -1, np.int64)
    total = 0
    for i in range(label.size):
        if label[i] >= 0 and fresh[label[i]] < 0:
            fresh[label[i]] = total
            total += 1
    coupled = total
    filled = 0
    for i in range(label.size):
        if label[i] >= 0:
            label[i] = fresh[label[i]]
        else:
            if filled == 0:
                total += 1
            label[i] = total - 1
            filled = (filled + 1) % pack
    return total, coupled


@compiled
def _extend(indptr, indices, strength, largest, threshold, first, label, count, tile, layers, width):
    """List each core and the strongly coupled neighbours that still fit `tile`, layer by layer.

    Unknowns with a negative label are in no core yet.
    """
    n = indptr.size - 1
    index = np.full((count, width), -1, np.int64)
    core = np.zeros(count, np.int32)
    size = np.zeros(count, np.int32)
    for i in range(label.size):
        k = label[i]
        if k >= 0:
            index[k, core[k]] = first + i
            core[k] += 1
    stamp = np.full(n, -1, np.int64)
    link = np.zeros(n, np.float32)
    fresh = np.empty(n, np.int64)
    for k in range(count):
        total = core[k]
        for t in range(total):
            stamp[index[k, t]] = k
        begin = 0
        for _ in range(layers):
            if total >= tile:
                break
            found = 0
            for t in range(begin, total):
                i = index[k, t]
                for e in range(indptr[i], indptr[i + 1]):
                    j = indices[e]
                    if strength[e] <= 0.0 or strength[e] < threshold * min(largest[i], largest[j]):
                        continue
                    if stamp[j] != k:
                        stamp[j], link[j] = k, 0.0
                        fresh[found] = j
                        found += 1
                    link[j] += strength[e]
            begin = total
            if found == 0:
                break
            if total + found > tile:  # the strongest ones only
                order = np.argsort(-link[fresh[:found]], kind="mergesort")
                taken = fresh[:found][order[: tile - total]]
            else:
                taken = fresh[:found]
            for t in range(taken.size):
                index[k, total + t] = taken[t]
            total += taken.size
        size[k] = total
    return index, core, size


def _partition(matrix: LocalMatrix, strength, largest, threshold: float, core: int, limit: int = 0):
    label, count = _grow_cores(matrix.indptr, matrix.indices, strength, largest, threshold, matrix.first,
                               matrix.owned, core, limit)
    return label, count


@compiled
def _extent(indptr, indices, strength, largest, threshold, first, label, count, smallest):
    """Return how many strong couplings long the cores are, on average over those of `smallest` unknowns or more."""
    owned = label.size
    start = np.zeros(count + 1, np.int64)
    for i in range(owned):
        if label[i] >= 0:
            start[label[i] + 1] += 1
    for k in range(count):
        start[k + 1] += start[k]
    members, filled = np.empty(start[count], np.int64), start[:-1].copy()
    for i in range(owned):
        if label[i] >= 0:
            members[filled[label[i]]] = i
            filled[label[i]] += 1
    depth = np.full(owned, -1, np.int64)
    queue = np.empty(owned, np.int64)
    total, cores = 0.0, 0
    for k in range(count):
        size = start[k + 1] - start[k]
        if size < smallest or size == 0:
            continue
        seed = members[start[k]]
        for _ in range(2):  # from anywhere to the far end, from there across
            for t in range(start[k], start[k + 1]):
                depth[members[t]] = -1
            depth[seed] = 0
            queue[0] = seed
            head, tail = 0, 1
            while head < tail:
                i = queue[head]
                head += 1
                row = first + i
                for e in range(indptr[row], indptr[row + 1]):
                    j = indices[e] - first
                    if j < 0 or j >= owned or label[j] != k or depth[j] >= 0:
                        continue
                    if strength[e] <= 0.0 or strength[e] < threshold * min(largest[row], largest[indices[e]]):
                        continue
                    depth[j] = depth[i] + 1
                    queue[tail] = j
                    tail += 1
            seed = queue[tail - 1]
        total += depth[seed]
        cores += 1
    return total / max(1, cores)


# Cores longer than this (in strong couplings), and than a compact one of their size, coarsen a line too much.
LONGEST_CORE = 20
SMALL_CORE = 20  # as many, where one coarse unknown a core says too little: docs/method.md
SAMPLE = 40


def choose_core(matrix: LocalMatrix, strength, largest, threshold: float, tile: int, small: bool = False) -> int:
    """Choose the largest core, up to 0.6 of a tile, whose first layer still fits the tile and that is no line.

    Of `small` cores none has more than `SMALL_CORE` unknowns.
    """
    graph = (matrix.indptr, matrix.indices, strength, largest, threshold, matrix.first)
    for fraction in (0.6, 0.55, 0.45, 0.35, 0.3, 0.25, 0.2, 0.15):
        core = max(1, min(int(fraction * tile), SMALL_CORE if small else tile))
        label, count = _partition(matrix, strength, largest, threshold, core, SAMPLE)
        if count == 0:
            return core
        _, members, size = _extend(*graph, label, count, 4 * tile, 1, 4 * tile)
        full = members >= core  # cores cut short by the border say nothing
        sizes = size[full] if full.any() else size
        fits = fraction <= 0.25 or sizes.mean() <= 0.97 * tile
        if fits and _extent(*graph, label, count, core) <= max(LONGEST_CORE, 3.0 * np.sqrt(core)):
            return core
    return core


def nodes_of(matrix: LocalMatrix, block: int) -> LocalMatrix:
    """Return the graph of nodes: one row for `block` unknowns, the Frobenius norm for each block of entries."""
    n = matrix.rows
    entries = sp.csr_matrix((matrix.values, matrix.indices, matrix.indptr), shape=(n, n)).tobsr((block, block))
    norms = np.sqrt(np.einsum("eij,eij->e", entries.data, entries.data))
    nodes = sp.csr_matrix((norms, entries.indices, entries.indptr), shape=(n // block, n // block))
    nodes.sort_indices()
    return LocalMatrix(nodes.indptr.astype(np.int64), nodes.indices.astype(np.int64), nodes.data,
                       matrix.first // block, matrix.owned // block)


def unknowns_of(patches: Patches, block: int) -> Patches:
    """Return patches of nodes as patches of unknowns, those of a node side by side."""
    index = patches.index[:, :, None] * block + np.arange(block)
    index[patches.index < 0] = -1
    flat = index.reshape(patches.count, patches.index.shape[1] * block)
    return Patches(np.ascontiguousarray(flat), patches.core * np.int32(block),
                   patches.size * np.int32(block), np.repeat(patches.label, block), patches.coupled)


def make_patches(
    matrix: LocalMatrix, tile: int, *, core: int | None, overlap: int, threshold: float, block: int = 1,
    signed: bool = False, small: bool = False,
) -> Patches:
    """Cut a rank's unknowns into cores and grow a patch around each.

    Args:
        matrix: rows of this rank and its neighbours' within `overlap` layers.
        block: unknowns of a node, numbered one after the other (the matrix's block size); a node is never cut,
            unless a tile is too small for one.
        tile: rows of a tile.
        core: unknowns of a core; None chooses.
        overlap: layers a patch may add.
        threshold: couplings below this fraction of the row's largest are not followed.
        signed: couplings of the diagonal's sign are weak (`coupling_strength`); not for blocks.
        small: choose small cores (`choose_core`).

    Returns:
        The patches; every owned unknown is in the core of exactly one.
    """
    if 1 < block <= tile:
        whole = make_patches(nodes_of(matrix, block), tile // block, core=max(1, core // block) if core else None,
                             overlap=overlap, threshold=threshold, small=small)
        return unknowns_of(whole, block)
    strength, largest = coupling_strength(matrix.indptr, matrix.indices, matrix.values, signed and block == 1)
    # on a small tile the border always outweighs the core; half a tile keeps the coarse levels sparse
    half = max(1, tile // 2) if tile <= SMALL_TILE else None
    wanted = core or half or choose_core(matrix, strength, largest, threshold, tile, small)
    wanted = min(wanted, tile)
    label, count = _partition(matrix, strength, largest, threshold, wanted)
    if count:
        _merge_small(matrix.indptr, matrix.indices, strength, largest, NEGLIGIBLE, matrix.first, label, count,
                     max(2, int(0.4 * wanted)), min(tile, max(wanted + 1, int(1.3 * wanted))))
    total, coupled = _number(label, count, max(1, min(tile, wanted)))
    index, members, size = _extend(matrix.indptr, matrix.indices, strength, largest, threshold, matrix.first, label,
                                   total, tile, overlap, tile)
    width = int(size.max(initial=1))
    return Patches(np.ascontiguousarray(index[:, :width]), members, size, label, np.arange(total) < coupled)

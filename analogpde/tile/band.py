"""Compiled kernels of banded matrices, eight side by side: elimination and solves for many columns."""

from __future__ import annotations

from analogpde.compiled import compiled
from analogpde.tile.lanes import larger, load, minus_product, product, reciprocal, store

COLUMNS = 4  # solved at a time: what is read of the factors serves all of them


@compiled
def eliminate_rows(band, n, w, i, largest):  # type: ignore[no-untyped-def]
    """Factorise rows i and i + 1 of eight matrices, those above done; i is even. Row n may be zero where n is odd.

    Entry (i, j) is band[(2 w + 2) i + w + j − i]; w is even. Two rows and two pivots at a time halve the trips through
    memory. An entry (i + 1, i − w) beyond the band is the zero that ends row i.

    Returns:
        The largest multiplier of each matrix, of `largest` and these rows': where it is large, so are rounding errors.
    """
    high = 2 * w + 2
    here = high * i + w - i  # entry (i, j) is at here + j, entry (i + 1, j) at here + high − 1 + j
    for t in range(max(0, i - w), i, 2):
        p, u = here + t, high * t + w  # entries (i, t) and (t, t)
        q, v = p + high - 1, u + high  # entries (i + 1, t) and (t + 1, t + 1)
        above = load(band, u + 1)
        l1, m1 = product(load(band, p), load(band, u)), product(load(band, q), load(band, u))
        l2 = product(minus_product(load(band, p + 1), l1, above), load(band, v))
        m2 = product(minus_product(load(band, q + 1), m1, above), load(band, v))
        store(band, p, l1)
        store(band, p + 1, l2)
        store(band, q, m1)
        store(band, q + 1, m2)
        largest = larger(larger(larger(larger(largest, l1), l2), m1), m2)
        for c in range(2, min(w, n - 1 - t) + 1):
            above, below = load(band, u + c), load(band, v + c - 1)
            store(band, p + c, minus_product(minus_product(load(band, p + c), l1, above), l2, below))
            store(band, q + c, minus_product(minus_product(load(band, q + c), m1, above), m2, below))
        below = load(band, v + w)  # beyond the first one's
        store(band, p + w + 1, minus_product(load(band, p + w + 1), l2, below))
        store(band, q + w + 1, minus_product(load(band, q + w + 1), m2, below))
    p, q = here + i, here + high - 1 + i
    pivot = reciprocal(load(band, p))
    store(band, p, pivot)
    if i + 1 < n:
        m1 = product(load(band, q), pivot)
        store(band, q, m1)
        largest = larger(largest, m1)
        for c in range(1, min(w, n - 1 - i) + 1):
            store(band, q + c, minus_product(load(band, q + c), m1, load(band, p + c)))
        store(band, q + 1, reciprocal(load(band, q + 1)))
    return largest


@compiled
def eliminate_band(band, n, w, largest):  # type: ignore[no-untyped-def]
    """Factorise eight matrices in place, without row exchanges: L below the inverted pivots, U above.

    As `eliminate_rows`; n + 1 rows are needed, the last of them zero. `largest[0]` becomes the largest multiplier of
    each.
    """
    store(largest, 0, load(band, (2 * w + 2) * n))
    for i in range(0, n, 2):
        store(largest, 0, eliminate_rows(band, n, w, i, load(largest, 0)))


@compiled
def solve_columns(band, n, w, a, b, c, d):  # type: ignore[no-untyped-def]
    """Solve with the factors of `eliminate_band` for `COLUMNS` columns in place.

    Row i of a column is its row w + i; the w rows on either side are room, zero.
    """
    high = 2 * w + 2
    for i in range(n):
        s, t, u, v = load(a, w + i), load(b, w + i), load(c, w + i), load(d, w + i)
        for e in range(w):
            x, j = load(band, high * i + e), i + e
            s, t = minus_product(s, x, load(a, j)), minus_product(t, x, load(b, j))
            u, v = minus_product(u, x, load(c, j)), minus_product(v, x, load(d, j))
        store(a, w + i, s)
        store(b, w + i, t)
        store(c, w + i, u)
        store(d, w + i, v)
    for i in range(n - 1, -1, -1):
        s, t, u, v = load(a, w + i), load(b, w + i), load(c, w + i), load(d, w + i)
        for e in range(w, 0, -1):
            x, j = load(band, high * i + w + e), w + i + e
            s, t = minus_product(s, x, load(a, j)), minus_product(t, x, load(b, j))
            u, v = minus_product(u, x, load(c, j)), minus_product(v, x, load(d, j))
        x = load(band, high * i + w)
        store(a, w + i, product(s, x))
        store(b, w + i, product(t, x))
        store(c, w + i, product(u, x))
        store(d, w + i, product(v, x))

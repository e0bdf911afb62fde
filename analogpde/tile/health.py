"""Health of programmed tiles: is the circuit stable, and how strongly does it amplify errors?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.compiled import compiled
from analogpde.tile.blocks import Blocks
from analogpde.tile.factors import Factors, factorise
from analogpde.tile.kernels import probe_groups
from analogpde.tile.loop import Loop
from analogpde.tile.settling import fastest_growth

# The power iteration below stays within this factor of ‖Ĝ⁻¹‖₂ on every block family of the tests, random ones included.
POWER_ITERATION_MARGIN = 1.1
_STEPS = 24  # at most; PDE blocks, with one slow mode, need three to five
_SETTLED = 0.01


@compiled
def _monotone(offsets, row, col, value, sizes, w, product, passed):  # type: ignore[no-untyped-def]
    """Tell of each block whether it is an M-matrix by the witness w: Ĝw > 0, w > 0, off-diagonals not positive."""
    for k in range(sizes.size):
        passed[k] = True
        product[: sizes[k]] = 0.0
        for e in range(offsets[k], offsets[k + 1]):
            product[row[e]] += value[e] * w[k, col[e]]
            if row[e] != col[e] and value[e] > 0.0:
                passed[k] = False
        for i in range(sizes[k]):
            passed[k] = passed[k] and w[k, i] > 0.0 and product[i] > 0.0


def smallest_singular_value(factors: Factors) -> NDArray[np.float64]:
    """Estimate the smallest singular value of each tile by power iteration on Ĝ⁻ᵀĜ⁻¹: probe shots without noise.

    Two starts, the better of which counts: nearly all ones, close to the slow mode of a diffusion block (the only good
    one for a long chain), and random signs, which no mode is orthogonal to. Eight tiles at a time are iterated
    until none of their values still moves by more than a percent.

    Args:
        factors: of the programmed tiles. Tiles that are not regular get 0.

    Returns:
        Estimates from above (power iteration approaches ‖Ĝ⁻¹‖₂ from below), shape (K,); divided by
        `POWER_ITERATION_MARGIN` they are estimates from below.
    """
    count, n = factors.rows.shape
    if count == 0 or n == 0:
        return np.ones(count)
    groups = factors.groups
    # an alternating part keeps the start from being orthogonal to a mode that changes sign
    smooth = 1.0 + 0.1 * np.cos(2.4 * np.arange(n))
    signs = np.random.default_rng(0).choice((-1.0, 1.0), n)
    norm = np.zeros(count)
    data, members, base, width, size, rows, _, sizes = groups.arrays
    probe_groups(data, members, base, width, size, rows, sizes, np.stack((smooth, signs)).astype(data.dtype), _STEPS,
                 _SETTLED, norm)
    estimate = 1.0 / np.maximum(norm, 1e-30)
    return np.where(factors.regular & np.isfinite(norm), estimate, 0.0)


def bias_sway(factors: Factors, shared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation of 1ᵀĜ⁻¹η, η the read noise of a bias column, shape (K,).

    What the rows of a tile share of it makes the loop Ĝ − η1ᵀ, unstable where 1ᵀĜ⁻¹η reaches 1.

    Args:
        factors: of the programmed tiles. shared: standard deviation of η, shape (K,).
    """
    n = factors.rows.shape[1]
    ones = (np.arange(n) < factors.sizes[:, None]).astype(factors.data.dtype)
    factors.groups.solve(ones, transposed=True)
    return np.asarray(shared * np.linalg.norm(ones.astype(np.float64), axis=1))


def _symmetric_part_definite(held: Blocks) -> NDArray[np.bool_]:
    """Tell which blocks have a positive definite symmetric part, by elimination, shape (K,)."""
    lengths = np.diff(held.offsets)
    first = np.arange(len(held.value)) + np.repeat(held.offsets[:-1], lengths)  # of a block: its entries, then mirrored
    second = first + np.repeat(lengths, lengths)
    count, half = 2 * len(held.value), 0.5 * held.value
    row, col = np.empty((2, count), held.row.dtype)
    both = Blocks(held.sizes, 2 * held.offsets, row, col, np.empty(count), held.tiles, held.size)
    for place, i, j in ((first, held.row, held.col), (second, held.col, held.row)):
        both.row[place], both.col[place], both.value[place] = i, j, half
    return factorise(both, cells=held).definite


def stable(held: Blocks, factors: Factors, loop: Loop | None = None, chip: Chip | None = None) -> NDArray[np.bool_]:
    """Tell which tiles settle: all eigenvalues of D⁻¹Ĝ in the right half plane, D the total row conductance.

    Two sufficient tests come first, for all tiles at once. An M-matrix (off-diagonals not positive, and
    Ĝw > 0 for some w > 0) is stable, and so is D⁻¹Ĝ. A matrix with a positive definite symmetric part is
    stable, and so is D⁻¹Ĝ, which is similar to D^(−1/2) Ĝ D^(−1/2). Only where both leave a doubt are the
    eigenvalues computed. Of inverters with a pole the first test holds as well (the extended system, one sign turned,
    is an M-matrix too), the second does not. With a second pole of the amplifiers neither does: there may be complex
    eigenvalues.

    Args:
        held: programmed blocks. factors: of them.
        loop, chip: the loop whose matrices these are, where its load is not the sum of the blocks' magnitudes.
    """
    w = np.ones((held.count, held.size), factors.data.dtype)
    factors.groups.solve(w)
    passed = np.empty(held.count, np.bool_)
    _monotone(held.offsets, held.row, held.col, held.value, held.sizes, w, np.empty(held.size), passed)
    second = chip is not None and loop is not None and chip.amplifier.second_pole is not None
    if (loop is not None and loop.load.ndim == 3) or second:
        passed[:] = False  # a load that couples rows
    doubt = np.flatnonzero(~passed)
    if len(doubt) and (loop is None or loop.inverted is None) and not second:
        passed[doubt] = _symmetric_part_definite(held.select(doubt))
        doubt = np.flatnonzero(~passed)
    doubt = doubt[factors.regular[doubt]]  # a row that nothing loads has no dynamics
    if len(doubt) and loop is not None and chip is not None:
        passed[doubt] = fastest_growth(loop.select(doubt), chip) < 0
    elif len(doubt):
        matrices = held.select(doubt).dense()
        total = np.abs(matrices).sum(axis=2, keepdims=True)
        passed[doubt] = np.linalg.eigvals(matrices / np.maximum(total, 1e-30)).real.min(axis=1) > 0
    return passed

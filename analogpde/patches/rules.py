"""The rules of the tile multigrid that do not depend on who runs it, PETSc or NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.tile.blocks import Blocks
from analogpde.tile.programming import rounding_cost

# A level must shrink the problem at least this much, or coarsening has stalled (dense or decoupled rows).
STALLED = 0.7
# Beyond this operator complexity coarse levels cost more than they bring: the last one is solved digitally.
LARGEST_COMPLEXITY = 6.0

SMOOTHING_WEIGHT = 0.9  # measured on the prototype: 0.8…1 give the same counts

# What rounding to one slice may add to the diagonal, on average, before a second slice is worth its cells.
COARSE_ROUNDING = 0.05
SAMPLE = 64  # tiles of a rank that it is measured on

STRENGTH = 0.25  # couplings below this fraction of the largest are not followed
# Where the two directions of couplings differ by this fraction of them, convection rules. By measurement,
# docs/method.md.
ONE_WAY = 0.1
# Fewer couplings of the diagonal's sign than this fraction hide no anisotropy from a look at the entries.
POSITIVE = 0.01
# Fewer couplings between unlike diagonals than this fraction of all are an interface, not a rough coefficient.
UNEVEN = 0.05
# Local solves that smooth P are shifted as the tiles are, but by no more: beyond that P grows too narrow.
LARGEST_SHIFT_OF_P = 0.01
# Tiles of a smaller shift, of the diagonal, see a stiff island move as one where their patch holds all of it, and leave
# a jump to cores that do not: then each core needs its own coarse unknown.
LEAST_SHIFT = 1e-3


def judge_couplings(sums: NDArray[np.float64]) -> tuple[bool, bool, bool]:
    """Judge the sums of `measure_couplings`, over all ranks.

    Returns:
        Whether convection rules; whether couplings of the diagonal's sign may hide an anisotropy; whether coefficients
        are rough.
    """
    one_way, total, positive, unlike, count = sums
    return bool(one_way > ONE_WAY * total), bool(positive > POSITIVE * total), bool(unlike > UNEVEN * count)


def mostly_border(core: int, size: int, vectors: int, small: bool) -> bool:
    """Tell whether patches are more border than core, as in 3-D and on small tiles.

    Args:
        core, size: unknowns of all cores and of all patches. vectors: near-null vectors. small: cores are small by
            choice.
    """
    # so it is in 3-D: one near-null vector 1.2…2.3 against 0.8…1.1 in 2-D, several 3 against 1…1.3; around small cores
    # two layers are 5 cores in 3-D and 2 in 2-D
    limit = 3.5 if small else 1.2 if vectors == 1 else 2.0
    return size - core >= limit * max(1, core)


def choose_truncation(tile: int, vectors: int, border: bool) -> float:
    """Return the truncation of P, by measurement (docs/method.md).

    10 % where patches are mostly core (2-D), 15 % where they are mostly border (3-D, small tiles); with several
    near-null vectors, whose coarse nodes are few unknowns apart and fill fast, 25 % there.

    Args:
        tile: rows of the largest block that tiles solve. vectors: near-null vectors. border: see `mostly_border`.
    """
    if vectors > 1 and border:
        return 0.25
    return 0.15 if border or (vectors == 1 and tile <= 32) else 0.1


def smoothing_sweeps(vectors: int, border: bool) -> int:
    """Return how often P is smoothed; with several near-null vectors in 3-D a second sweep only fills."""
    return 1 if vectors > 1 and border else 2


def sampled_cost(blocks: Blocks, chip: Chip, shift: float) -> tuple[float, int]:
    """Measure on a sample of blocks what rounding to one slice adds to the diagonals; see `rounding_cost`."""
    chosen = np.unique(np.linspace(0, blocks.count - 1, SAMPLE).astype(np.int64)) if blocks.count else np.arange(0)
    return rounding_cost(blocks.select(chosen), chip, shift=shift)


def choose_slices(added: float, rows: float) -> int:
    """Return 2 where one slice would round too coarsely, else 1.

    Args:
        added, rows: from `sampled_cost`, summed over ranks.
    """
    return 2 if added > COARSE_ROUNDING * rows else 1

"""Health of programmed tiles: is the circuit stable, and how strongly does it amplify errors?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analogpde.tile.blocks import Blocks


def invert(dense: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Invert a batch of matrices, shape (K, n, n), float32.

    Returns:
        The inverses (zero where singular) and a mask of the singular ones.
    """
    try:
        return np.linalg.inv(dense), np.zeros(len(dense), bool)
    except np.linalg.LinAlgError:
        singular = np.linalg.slogdet(dense)[0] == 0
        inverse = np.zeros_like(dense)
        inverse[~singular] = np.linalg.inv(dense[~singular])
        return inverse, singular


# The power iteration below stays within this factor of ‖X‖₂ on every block family of the tests, random ones included.
POWER_ITERATION_MARGIN = 1.1


def smallest_singular_value(inverse: NDArray[np.float32], steps: int = 6) -> NDArray[np.float64]:
    """Estimate the smallest singular value of each tile from its inverse by power iteration on XᵀX.

    Two starts, the better of which counts: all ones, close to the slow mode of a diffusion block (the only good one
    for a long chain), and the largest row of X, which is never far from the leading singular vectors.

    Args:
        inverse: X, shape (K, n, n).
        steps: products with X.

    Returns:
        Estimates from above (power iteration approaches ‖X‖₂ from below), shape (K,); divided by
        `POWER_ITERATION_MARGIN` they are estimates from below.
    """
    count, n, _ = inverse.shape
    if count == 0 or n == 0:
        return np.ones(count)
    vectors = np.empty((count, n, 2), np.float32)
    # an alternating part keeps the start from being orthogonal to a mode that changes sign
    vectors[:, :, 0] = 1.0 + 0.1 * np.cos(2.4 * np.arange(n))
    vectors[:, :, 1] = inverse[np.arange(count), np.einsum("kij,kij->ki", inverse, inverse).argmax(axis=1)]
    forward = vectors
    for step in range(steps):
        if step:
            vectors = np.swapaxes(inverse, 1, 2) @ forward
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-30))
        forward = inverse @ vectors
    norm = np.linalg.norm(forward, axis=1).max(axis=1)
    return 1.0 / np.maximum(norm.astype(np.float64), 1e-30)


def _positive_definite(matrices: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Test a batch of symmetric matrices by Cholesky factorisation; halve the batch where it fails."""
    passed = np.zeros(len(matrices), bool)
    pending = [np.arange(len(matrices))]
    while pending:
        which = pending.pop()
        try:
            np.linalg.cholesky(matrices[which])
            passed[which] = True
        except np.linalg.LinAlgError:
            if len(which) > 1:
                pending += [which[: len(which) // 2], which[len(which) // 2:]]
    return passed


def stable(held: Blocks, dense: NDArray[np.floating], inverse: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which tiles settle: all eigenvalues of D⁻¹Ĝ in the right half plane, D the total row conductance.

    Two sufficient tests come first, for all tiles at once. An M-matrix (off-diagonals not positive, and
    Ĝw > 0 for some w > 0) is stable, and so is D⁻¹Ĝ. A matrix with a positive definite symmetric part is
    stable, and so is D⁻¹Ĝ, which is similar to D^(−1/2) Ĝ D^(−1/2). Only where both leave a doubt are the
    eigenvalues computed.

    Args:
        held: programmed blocks. dense: the same, shape (K, n, n). inverse: their inverses.
    """
    owner = held.owner
    w = inverse.sum(axis=2, dtype=np.float64)
    product = np.zeros_like(w)
    np.add.at(product, (owner, held.row), held.value * w[owner, held.col])
    outside = np.arange(held.size) >= held.sizes[:, None]
    monotone = ((w > 0) & (product > 0) | outside).all(axis=1)
    wrong_sign = np.bincount(owner, (held.row != held.col) & (held.value > 0), held.count) > 0
    passed = monotone & ~wrong_sign
    doubt = np.flatnonzero(~passed)
    if len(doubt):
        matrices = dense[doubt].astype(np.float64)
        passed[doubt] = _positive_definite(0.5 * (matrices + np.swapaxes(matrices, 1, 2)))
        doubt = np.flatnonzero(~passed)
    if len(doubt):
        matrices = dense[doubt].astype(np.float64)
        total = np.abs(matrices).sum(axis=2, keepdims=True)
        passed[doubt] = np.linalg.eigvals(matrices / np.maximum(total, 1e-30)).real.min(axis=1) > 0
    return passed

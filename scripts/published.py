"""What the scripts that reproduce published experiments share: batches of dense matrices on tiles, pages, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogpde import Chip
from analogpde.cost import Ledger
from analogpde.tile.blockamc import depth_needed, program_blocks
from analogpde.tile.blocks import Blocks

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "published.md"
IMAGES = ROOT / "docs" / "images"
INK = {"published": "#b3261e", "ours": "#1f5fa8", "other": "#2e7d4f", "grey": "#6b6b6b"}


def nearest_levels(matrices: NDArray[np.float64], levels: int, array: int) -> NDArray[np.float64]:
    """Return the most significant slice of each matrix, every part rounded to the nearest of 2·levels + 1 values.

    That is the rule of the chip paper: a pair of cells holds −levels … levels steps, the largest entry of an array
    takes the largest conductance. Matrices larger than an array are halved by BlockAMC; its four arrays, the Schur
    complement among them, are rounded each with a step of its own, and the matrix that they are the factors of is
    returned.

    Args:
        matrices: shape (K, n, n). levels: of one cell, without zero. array: rows of an array.
    """
    n = matrices.shape[1]
    if n <= array:
        step = np.abs(matrices).max(axis=(1, 2), keepdims=True) / levels
        step[step == 0] = 1.0
        return np.asarray(np.rint(matrices / step) * step)
    half = (n + 1) // 2
    a1 = nearest_levels(matrices[:, :half, :half], levels, array)
    a2, a3 = (coupling(part, levels, array) for part in (matrices[:, :half, half:], matrices[:, half:, :half]))
    fill = a3 @ np.linalg.solve(a1, a2)
    a4 = nearest_levels(matrices[:, half:, half:] - fill, levels, array) + fill
    return np.block([[a1, a2], [a3, a4]])


def coupling(part: NDArray[np.float64], levels: int, array: int) -> NDArray[np.float64]:
    """Round an off-diagonal block, array by array."""
    out = np.empty_like(part)
    for i in range(0, part.shape[1], array):
        for j in range(0, part.shape[2], array):
            out[:, i : i + array, j : j + array] = nearest_levels(part[:, i : i + array, j : j + array], levels, array)
    return out


def unit_diagonal(matrices: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale matrices symmetrically to a unit diagonal; return them and the scale of each row."""
    scale = 1.0 / np.sqrt(np.abs(np.einsum("kii->ki", matrices)))
    return matrices * scale[:, :, None] * scale[:, None, :], scale


class Tiles:
    """K dense matrices on tiles of one chip, each solved by INV, or by BlockAMC if it is larger than an array.

    Args:
        matrices: shape (K, n, n).
        chip: the machine.
        rule: 'published', nearest rounding of one slice without any shift; 'ours', the project's programming.
        slices: of each entry, with 'ours'.
        seed: of all draws.
    """

    def __init__(self, matrices: NDArray[np.float64], chip: Chip, rule: str = "published", slices: int = 1,
                 seed: int = 0) -> None:
        depth = depth_needed(matrices.shape[1], chip.tile_size)
        if rule == "published" and chip.cell.bits is not None:
            scaled, scale = unit_diagonal(matrices)
            held = nearest_levels(scaled, 2**chip.cell.bits - 1, chip.tile_size)
            # the levels are in the values now: what is left of the cells is their errors
            matrices, chip = held / (scale[:, :, None] * scale[:, None, :]), chip.replace(cell_bits=None)
        self.held = matrices
        self.stable = np.linalg.eigvals(matrices).real.min(axis=1) > 0
        used = np.flatnonzero(self.stable) if rule == "published" else np.arange(len(matrices))
        self._used, self._event = used, 0
        self._bank = program_blocks(
            Blocks.from_dense(np.ascontiguousarray(matrices[used])), chip, depth=depth, slices=slices, seed=seed,
            shift=0.0 if rule == "published" else 0.5)
        self.operations = Ledger()

    def shoot(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one answer of each circuit, shape (K, n); NaN for a circuit that is unstable."""
        x = np.full(right.shape, np.nan)
        part = np.ascontiguousarray(right[self._used])
        self.operations.add(self._bank.shoot(part, self._event))
        self._event += 1
        x[self._used] = part
        return x


def fixed_point(values: NDArray[np.float64], bits: int | None) -> NDArray[np.float64]:
    """Round each item (first axis) to fixed point with `bits` below its own largest magnitude; None: leave it."""
    if bits is None:
        return values
    axes = tuple(range(1, values.ndim))
    largest = np.abs(values).max(axis=axes, keepdims=True)
    step = 2.0 ** (np.ceil(np.log2(np.where(largest > 0, largest, 1.0))) - bits)
    return np.asarray(np.rint(values / step) * step)


def refine(matrices: NDArray[np.float64], right: NDArray[np.float64], tiles: Tiles, steps: int,
           bits: int | None = None) -> NDArray[np.float64]:
    """Refine a batch without acceleration, the published loop: x ← x + A0⁻¹ (b − A x).

    Args:
        matrices, right: shapes (K, n, n) and (K, n).
        tiles: of the matrices.
        steps: corrections.
        bits: fixed-point bits of matrix and vector in the residual; None: FP64.

    Returns:
        The iterates, shape (steps + 1, K, n), the first of them zero.
    """
    multiplied = fixed_point(matrices, bits)
    x = np.zeros((steps + 1, *right.shape))
    for k in range(steps):
        residual = right - np.einsum("kij,kj->ki", multiplied, fixed_point(x[k], bits)) if k else right
        x[k + 1] = x[k] + tiles.shoot(residual)
    return x


def relative_errors(x: NDArray[np.float64], exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ‖x − exact‖/‖exact‖ over the last axis; infinite where x is not finite."""
    error = np.linalg.norm(x - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
    return np.asarray(np.where(np.isfinite(error), error, np.inf))


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between the marks of a section of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = page.read_text(encoding="utf-8")
    head, _, rest = old.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise SystemExit(f"{page}: no section {name}")
    page.write_text(f"{head}{begin}\n{text.strip()}\n{end}{tail}", encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def figure(count: int, height: float = 3.4) -> tuple[Any, Any]:
    """Return a figure and its axes in a row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 8.5, "axes.spines.top": False, "axes.spines.right": False,
                         "legend.frameon": False, "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6})
    drawn, axes = plt.subplots(1, count, figsize=(3.5 * count, height), layout="constrained", squeeze=False)
    return drawn, axes[0]


def save(drawn: Any, name: str) -> None:
    """Write a figure as a small PNG, of 256 colours."""
    path = IMAGES / name
    drawn.savefig(path, dpi=110)
    try:
        from PIL import Image

        Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    except ImportError:
        pass

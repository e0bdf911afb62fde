"""Iterative refinement with inexact solvers: a published figure, the rules that predict it, and what fails.

    .venv/bin/python scripts/reproduce_refinement.py [--quick]

1. Figure 6 of the review by Mannocci et al., npj Unconventional Computing 2026, s44335-025-00044-2: 50 × 50,
   condition 10 to 100, a solver of 5 to 10 bits, a residual of 12 to 32 bits.
2. The rules of refinement, predicted and measured: rate, floor of the residual, read noise, converters.
3. Conjugate gradients on a noisy multiplier, which say "converged" of wrong answers, beside `analogpde.solve`.

Writes docs/images/refinement_*.png and the section `refinement` of docs/published.md; --quick takes few samples and
only prints. Two minutes.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from published import INK, Tiles, figure, refine, relative_errors, save, table, write_section
from reproduce_pku2025 import spectrum
from scipy.sparse.linalg import LinearOperator, cg

import analogpde
from analogpde import Chip, load_chip
from analogpde.tile.blocks import Blocks
from analogpde.tile.mvm_bank import Entries, program_mvm

SIZE = 50
STEPS = 30


def laplacian(n: int) -> sp.csr_array:
    """Return the five-point stencil on n × n points."""
    line = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    return sp.csr_array(sp.kron(line, sp.eye_array(n)) + sp.kron(sp.eye_array(n), line))


def solver(bits: int) -> Chip:
    """Return a chip whose only error is that its cells hold `bits` bits, sign included."""
    return load_chip("ideal").replace(tile_size=64, cell_bits=bits - 1)


def run(condition: float, chip: Chip, residual_bits: int | None, *, count: int, n: int = SIZE, steps: int = STEPS,
        seed: int = 0) -> tuple[NDArray[np.float64], Tiles, NDArray[np.float64]]:
    """Refine random systems; return relative errors (steps + 1, K), the tiles, and the matrices."""
    rng = np.random.default_rng(seed)
    matrices = spectrum(count, n, condition, rng)
    exact = rng.standard_normal((count, n))
    right = np.einsum("kij,kj->ki", matrices, exact)
    tiles = Tiles(matrices, chip, seed=seed)
    with np.errstate(over="ignore", invalid="ignore"):
        errors = relative_errors(refine(matrices, right, tiles, steps, residual_bits), exact)
    errors[0] = 1.0
    return errors, tiles, matrices


def review_figure(count: int) -> tuple[dict[tuple[float, int], NDArray[np.float64]],
                                       dict[tuple[float, int], float]]:
    """Return median errors over steps by (condition, solver bits), and floors by (condition, residual bits)."""
    curves = {(condition, bits): np.median(run(condition, solver(bits), 32, count=count)[0], axis=1)
              for condition in (10.0, 30.0, 100.0) for bits in (5, 6, 7, 8, 9, 10)}
    floors = {(condition, bits): float(np.median(run(condition, solver(10), bits, count=count)[0][-1]))
              for condition in (10.0, 30.0, 100.0) for bits in (12, 16, 20, 24, 28, 32)}
    return curves, floors


def rates(count: int) -> NDArray[np.float64]:
    """Return predicted and measured contraction of the error per step, shape (cases, 2).

    Predicted: the spectral radius of I − A0⁻¹A of the matrix that the cells hold, programming error included.
    Measured: the geometric mean over the steps 6 to 16, in FP64.
    """
    pairs = []
    for condition in (5.0, 20.0, 80.0):
        for bits in (5, 6, 8):
            for error in (None, 0.005):
                chip = solver(bits).replace(programming_error=error)
                errors, tiles, matrices = run(condition, chip, None, count=count, steps=16, n=24, seed=int(condition))
                held = programmed(tiles, matrices.shape)
                for k in np.flatnonzero(tiles.stable):
                    radius = np.abs(np.linalg.eigvals(np.eye(24) - held[k] @ matrices[k])).max()
                    measured = (errors[16, k] / errors[6, k]) ** 0.1
                    if errors[16, k] > 1e-13 and np.isfinite(measured):
                        pairs.append((radius, measured))
    return np.array(pairs)


def programmed(tiles: Tiles, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the inverses that noiseless tiles hold, by one shot for each column, shape (K, n, n)."""
    inverse = np.empty(shape)
    for j in range(shape[1]):
        unit = np.zeros(shape[:2])
        unit[:, j] = 1.0
        inverse[:, :, j] = tiles.shoot(unit)
    return inverse


def residual_floors(count: int) -> list[tuple[float, float, float]]:
    """Return (condition, floor with a residual in FP32, in FP64): what precision of the residual leaves."""
    out = []
    for condition in (1e1, 1e2, 1e3, 1e4):
        rng = np.random.default_rng(5)
        matrices = spectrum(count, SIZE, condition, rng)
        exact = rng.standard_normal((count, SIZE))
        right = np.einsum("kij,kj->ki", matrices, exact)
        chip = load_chip("ideal").replace(tile_size=64, cell_bits=16)
        floors = []
        for single in (True, False):
            tiles = Tiles(matrices, chip)
            x = np.zeros_like(right)
            for _ in range(12):
                if single:
                    product = np.einsum("kij,kj->ki", matrices.astype(np.float32), x.astype(np.float32))
                    residual = (right.astype(np.float32) - product).astype(np.float64)
                else:
                    residual = right - np.einsum("kij,kj->ki", matrices, x)
                x = x + tiles.shoot(residual)
            floors.append(float(np.median(relative_errors(x, exact))))
        out.append((condition, floors[0], floors[1]))
    return out


def noisy_curves(count: int) -> dict[float, NDArray[np.float64]]:
    """Return median errors over steps by read noise, residual in FP64: the rate suffers, the floor does not."""
    out = {}
    for noise in (0.0, 0.005, 0.01, 0.02):
        chip = solver(9).replace(read_noise=noise or None)
        out[noise] = np.median(run(10.0, chip, None, count=count, n=24, steps=40)[0], axis=1)
    return out


def converter_errors(count: int) -> dict[str, list[tuple[int, float]]]:
    """Return by converter (bits, median contraction ‖b − A x‖/‖b‖ of one shot) on a Laplacian block.

    The right-hand side is smooth, so that the answer is large and its rounding weighs most.
    """
    a = laplacian(8).toarray()[None]
    rng = np.random.default_rng(6)
    out: dict[str, list[tuple[int, float]]] = {"DAC": [], "ADC": []}
    for name, points in out.items():
        for bits in (4, 6, 8, 10, 12, 14):
            tiles = Tiles(a, load_chip("ideal").replace(tile_size=64, **{f"{name.lower()}_bits": bits}))
            ratios = []
            for _ in range(count):
                b = 1.0 + 0.1 * rng.standard_normal((1, 64))
                ratios.append(np.linalg.norm(b - tiles.shoot(b) @ a[0]) / np.linalg.norm(b))
            points.append((bits, float(np.median(ratios))))
    return out


def noisy_operator(a: sp.csr_array, chip: Chip, seed: int) -> LinearOperator:
    """Return an analog multiplier as SciPy sees it: y = A x on open-loop arrays."""
    n = a.shape[0]
    bank, _ = program_mvm(Entries.of(Blocks.from_dense(a.toarray()[None])), np.array([0]), chip, seed=seed)
    shots = [0]

    def multiply(x: NDArray[np.float64]) -> NDArray[np.float64]:
        y = np.zeros((1, n))
        shots[0] += 1
        bank.subtract(np.ascontiguousarray(-x.reshape(1, n)), y, shots[0])
        return y[0]

    return LinearOperator((n, n), matvec=multiply, dtype=np.float64)


def conjugate_gradients(a: sp.csr_array, chip: Chip, seed: int) -> tuple[int, float, list[float]]:
    """Run SciPy's CG to rtol 1e-8 on a noisy multiplier; return its verdict, the true residual, and its history."""
    b = np.ones(a.shape[0])
    history: list[float] = []
    x, info = cg(noisy_operator(a, chip, seed), b, rtol=1e-8, maxiter=200,
                 callback=lambda xk: history.append(float(np.linalg.norm(b - a @ xk) / np.linalg.norm(b))))
    return info, float(np.linalg.norm(b - a @ x) / np.linalg.norm(b)), history


def compare_cg(seeds: int) -> list[dict[str, Any]]:
    """Compare CG on the multiplier with refinement on INV tiles of the same cells."""
    rows = []
    for side in (8, 16):
        a, b = laplacian(side), np.ones(side * side)
        for error, noise in ((None, None), (0.01, None), (0.02, None), (0.01, 0.01)):
            chip = load_chip("ideal").replace(tile_size=256, cell_bits=7, dac_bits=8, adc_bits=8,
                                              programming_error=error, read_noise=noise)
            outcomes = [conjugate_gradients(a, chip, seed) for seed in range(seeds)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                ours = [analogpde.solve(a, b, chip=chip, seed=seed, rtol=1e-8) for seed in range(seeds)]
            rows.append({
                "unknowns": side * side, "error": error, "noise": noise, "claims": sum(o[0] == 0 for o in outcomes),
                "cg": [o[1] for o in outcomes], "converged": sum(r.converged for r in ours),
                "ours": [r.statistics.relative_residual for r in ours],
                "steps": [r.statistics.iterations for r in ours], "history": outcomes[0][2],
                "our_history": [s.relative_residual for s in ours[0].statistics.history]})
    return rows


def draw_review(curves: dict[tuple[float, int], NDArray[np.float64]], floors: dict[tuple[float, int], float]) -> None:
    """Draw the review's figure."""
    drawn, axes = figure(4)
    for axis, condition in zip(axes, (10.0, 30.0, 100.0), strict=False):
        for k, bits in enumerate((5, 6, 7, 8, 9, 10)):
            axis.semilogy(np.minimum(curves[condition, bits], 1e3), color=f"C{k}", label=f"{bits} bits")
        axis.set(title=f"solver bits, condition {condition:g}", xlabel="steps", ylim=(1e-10, 1e2))
    axes[0].set_ylabel("relative error of x")
    axes[0].legend(fontsize=7)
    for k, condition in enumerate((10.0, 30.0, 100.0)):
        bits = sorted(b for c, b in floors if c == condition)
        axes[3].semilogy(bits, [floors[condition, b] for b in bits], color=f"C{k}", marker="o", linestyle="none",
                         label=f"measured, condition {condition:g}")
        axes[3].semilogy(bits, [condition * 2.0**-b for b in bits], color=f"C{k}", linestyle="--")
    axes[3].set(title="residual bits; dashed κ·2⁻ᵇ", xlabel="bits of the residual", ylim=(1e-10, 1.0))
    axes[3].legend(fontsize=7)
    save(drawn, "refinement_review.png")


def draw_rules(pairs: NDArray[np.float64], floors: list[tuple[float, float, float]],
               noisy: dict[float, NDArray[np.float64]], converters: dict[str, list[tuple[int, float]]]) -> None:
    """Draw predictions and measurements."""
    drawn, axes = figure(4)
    axes[0].loglog(pairs[:, 0], pairs[:, 1], ".", color=INK["ours"], markersize=3)
    axes[0].plot([1e-2, 2], [1e-2, 2], color=INK["grey"], linestyle=":")
    axes[0].set(title="rate", xlabel="predicted: spectral radius of I − A0⁻¹A", ylabel="measured, per step",
                xlim=(1e-2, 2), ylim=(1e-2, 2))
    c = np.array([f[0] for f in floors])
    axes[1].loglog(c, [f[1] for f in floors], "o", color=INK["published"], label="residual in FP32")
    axes[1].loglog(c, c * 2.0**-24, "--", color=INK["published"], label="κ·2⁻²⁴")
    axes[1].loglog(c, [f[2] for f in floors], "o", color=INK["ours"], label="residual in FP64")
    axes[1].loglog(c, c * 2.0**-53, "--", color=INK["ours"], label="κ·2⁻⁵³")
    axes[1].set(title="floor by the residual's precision", xlabel="condition", ylabel="relative error of x")
    axes[1].legend(fontsize=7)
    for k, (noise, curve) in enumerate(noisy.items()):
        axes[2].semilogy(curve, color=f"C{k}", label=f"read noise {noise:.1%}")
    axes[2].set(title="read noise: rate, not floor", xlabel="steps", ylim=(1e-17, 10.0))
    axes[2].legend(fontsize=7)
    for name, points in converters.items():
        bits = np.array([p[0] for p in points])
        axes[3].semilogy(bits, [p[1] for p in points], marker="o", label=f"{name} alone")
    axes[3].semilogy(bits, 2.0 ** (1.0 - bits), ":", color=INK["grey"], label="2¹⁻ᵇ")
    axes[3].set(title="one shot, Laplacian block 64", xlabel="bits of the converter", ylabel="‖b − A x‖/‖b‖")
    axes[3].legend(fontsize=7)
    save(drawn, "refinement_rules.png")


def draw_cg(rows: list[dict[str, Any]]) -> None:
    """Draw true residuals of CG on the multiplier and of refinement."""
    drawn, axes = figure(2)
    for axis, unknowns in zip(axes, (64, 256), strict=True):
        for k, row in enumerate(r for r in rows if r["unknowns"] == unknowns):
            label = words(row)
            axis.semilogy(np.arange(1, 1 + len(row["history"])), row["history"], color=f"C{k}", linestyle="--")
            axis.semilogy(row["our_history"], color=f"C{k}", label=label)
        axis.set(title=f"Poisson, {unknowns} unknowns", xlabel="steps", xlim=(0, 60), ylim=(1e-9, 1e4))
    axes[0].set_ylabel("true ‖b − A x‖/‖b‖")
    axes[0].legend(fontsize=7)
    save(drawn, "refinement_cg.png")


def words(row: dict[str, Any]) -> str:
    """Return the errors of a row in words."""
    parts = [f"programming {row['error']:.0%}"] if row["error"] else []
    parts += [f"read {row['noise']:.0%}"] if row["noise"] else []
    return ", ".join(parts) or "rounding and converters only"


def text(floors: dict[tuple[float, int], float], pairs: NDArray[np.float64], rows: list[dict[str, Any]]) -> str:
    """Return the section of the page."""
    ratio = pairs[:, 1] / pairs[:, 0]
    body = [[f"{row['unknowns']}", words(row), f"{row['claims']} of {len(row['cg'])}",
             f"{min(row['cg']):.2g} … {max(row['cg']):.2g}", f"{row['converged']} of {len(row['ours'])}",
             f"{max(row['ours']):.1e}", f"{min(row['steps'])} … {max(row['steps'])}"] for row in rows]
    floor = [[f"{c:g}", *(f"{floors[c, b]:.1e} / {c * 2.0**-b:.1e}" for b in (12, 16, 20, 24, 28, 32))]
             for c in (10.0, 30.0, 100.0)]
    return "\n".join([
        table(["condition", *(f"{b} bits" for b in (12, 16, 20, 24, 28, 32))], floor), "",
        "*Error that stays, measured / κ·2⁻ᵇ.*", "",
        f"Rate: {len(pairs)} circuits; measured over predicted has the median {np.median(ratio):.2f} and lies between "
        f"{np.quantile(ratio, 0.05):.2f} and {np.quantile(ratio, 0.95):.2f} for nine in ten.", "",
        table(["unknowns", "errors of the cells", "CG says converged", "its true residual", "solve says converged",
               "its true residual, largest", "steps"], body)])


def main() -> int:
    """Run, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few samples; only print")
    quick = parser.parse_args().quick
    curves, floors = review_figure(5 if quick else 40)
    pairs = rates(5 if quick else 25)
    rows = compare_cg(2 if quick else 5)
    section = text(floors, pairs, rows)
    print(section)
    if not quick:
        draw_review(curves, floors)
        draw_rules(pairs, residual_floors(10), noisy_curves(20), converter_errors(40))
        draw_cg(rows)
        write_section("refinement", section)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

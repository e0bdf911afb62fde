"""Look for wrong answers called converged where a slow mode dominates: closed flows, nearly singular Laplacians.

    .venv/bin/python scripts/study_slow_modes.py

Diffusion and upwind convection in a closed vortex on 24 × 24 cells; the constant's eigenvalue is the reaction, 1e-3 to
1e-7, and right-hand sides have from all to a billionth of it. Laplacians less almost all of their lowest eigenvalue,
and right-hand sides that have nothing of that mode. Every solve of four chips and of two circuits with offsets and
mismatch, one level and several, is compared with a sparse LU. Prints one line for each that is wrong, and the counts;
exit code 1 if any.
"""

from __future__ import annotations

import collections
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as linalg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the tree that this script is in, installed or not

import analogpde.petsc  # noqa: E402, F401
from analogpde.petsc.stack import PETSc  # noqa: E402
from analogpde.refine.target import FORWARD_ERROR  # noqa: E402

N = 24
PECLET, REACTION = (1, 10, 100), (1e-3, 1e-5, 1e-6, 1e-7)
CHIPS: dict[str, dict[str, str | float]] = {name: {"analog_chip": name} for name in (
    "ideal", "rram128", "pku2025", "sram64")} | {
    "rram128 with offsets and a swing": {
        "analog_chip": "rram128", "analog_amplifier_gain": 1e4, "analog_amplifier_offset": 1e-3,
        "analog_inverter_mismatch": 1e-2, "analog_inverter_offset": 1e-3, "analog_output_swing": 1.0},
    "ideal with large offsets": {
        "analog_chip": "ideal", "analog_amplifier_offset": 5e-2, "analog_inverter_mismatch": 5e-2},
}
LEVELS = (10, 1)


def closed_flow(peclet: float) -> sp.csr_array:
    """Return diffusion and upwind convection around one vortex, without flux through the walls: all sums are 0."""
    rows = sp.lil_array((N * N, N * N))
    psi = np.sin(np.pi * np.arange(N + 1) / N)[:, None] * np.sin(np.pi * np.arange(N + 1) / N)
    for i, j in itertools.product(range(N), range(N)):
        right, above = psi[i + 1, j + 1] - psi[i + 1, j], psi[i, j + 1] - psi[i + 1, j + 1]
        for k, m, flux in ((i + 1, j, right), (i, j + 1, above)):
            if k < N and m < N:
                up, down = (i * N + j, k * N + m) if flux > 0 else (k * N + m, i * N + j)
                rows[up, up] += peclet * abs(flux) + 1.0
                rows[down, up] -= peclet * abs(flux) + 1.0
                rows[down, down] += 1.0
                rows[up, down] -= 1.0
    return rows.tocsr()


def right_hand_sides() -> dict[str, np.ndarray]:
    """Return vectors with more and less of the constant in them."""
    rng = np.random.default_rng(5)
    checkered = (-1.0) ** np.add.outer(np.arange(N), np.arange(N)).ravel()
    noise = rng.standard_normal(N * N)
    return {"random": rng.standard_normal(N * N), "checkered + 1e-6": checkered + 1e-6,
            "checkered + 1e-9": checkered + 1e-9, "random - mean + 1e-8": noise - noise.mean() + 1e-8}


def solve(matrix: PETSc.Mat, b: np.ndarray, chip: str, levels: int) -> tuple[int, np.ndarray]:
    """Return PETSc's reason and x of one solve."""
    options = PETSc.Options()
    given = CHIPS[chip] | {"pc_analog_levels": levels}
    for name, value in given.items():
        options[name] = value
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(matrix)
    ksp.setType("analog")
    ksp.setFromOptions()
    for name in given:
        options.delValue(name)
    x, right = matrix.createVecs()
    right.array[:] = b
    ksp.solve(right, x)
    reason, values = int(ksp.getConvergedReason()), x.array.copy()
    for thing in (ksp, x, right):
        thing.destroy()
    return reason, values


def flows() -> Iterator[tuple[str, sp.csr_array, dict[str, np.ndarray]]]:
    """Yield closed flows and their right-hand sides."""
    for peclet in PECLET:
        flow = closed_flow(peclet)
        for reaction, transposed in itertools.product(REACTION, (False, True)):
            whole = (flow + reaction * sp.eye_array(N * N)).tocsr()
            name = f"Péclet {peclet}, reaction {reaction:g}{', transposed' if transposed else ''}"
            yield name, whole.T.tocsr() if transposed else whole, right_hand_sides()


def shifted_laplacians() -> Iterator[tuple[str, sp.csr_array, dict[str, np.ndarray]]]:
    """Yield Laplacians less almost all of their lowest eigenvalue, and right-hand sides without that mode."""
    for m, relative in itertools.product((8, 12, 16, 20, 22, 24, 32, 48), (1e-5, 1e-6, 1e-7, 3e-8)):
        line = sp.diags_array([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
        lowest = 4 - 4 * np.cos(np.pi / (m + 1))
        whole = sp.kron(line, sp.eye_array(m)) + sp.kron(sp.eye_array(m), line)
        whole = sp.csr_array(whole - (1 - relative) * lowest * sp.eye_array(m * m))
        wave = np.sin(np.pi * np.arange(1, m + 1) / (m + 1))
        mode = np.outer(wave, wave).ravel() / (wave @ wave)
        sides = {}
        for seed in range(3):
            x = np.random.default_rng(seed).standard_normal(m * m)
            sides[f"of seed {seed}"] = whole @ (x - mode * (mode @ x))
        yield f"Laplacian {m} × {m}, lowest eigenvalue × {relative:g}", whole, sides


def look(title: str, family: Iterator[tuple[str, sp.csr_array, dict[str, np.ndarray]]]) -> int:
    """Solve a family with every chip and number of levels; return how many wrong answers were called converged."""
    count: collections.Counter[str] = collections.Counter()
    for name, whole, sides in family:
        whole.sort_indices()
        factors = linalg.splu(whole.tocsc())
        matrix = PETSc.Mat().createAIJ(whole.shape, csr=(
            whole.indptr.astype(PETSc.IntType), whole.indices.astype(PETSc.IntType), whole.data),
            comm=PETSc.COMM_SELF)
        for (side, b), chip, levels in itertools.product(sides.items(), CHIPS, LEVELS):
            reason, x = solve(matrix, b, chip, levels)
            exact = factors.solve(b)
            exact += factors.solve(b - whole @ exact)
            error = float(np.linalg.norm(x - exact) / np.linalg.norm(exact))
            verdict = "refused" if reason <= 0 else "right" if error <= FORWARD_ERROR else "WRONG"
            count[verdict] += 1
            if verdict == "WRONG":
                print(f"WRONG: {name}, b {side}, {chip}, levels {levels}: error {error:.1e} called converged",
                      flush=True)
        matrix.destroy()
    print(f"{title}: " + ", ".join(f"{count[verdict]} {verdict}" for verdict in ("right", "refused", "WRONG")),
          f"of {count.total()}", flush=True)
    return count["WRONG"]


def main() -> int:
    """Run all combinations; return 1 if a wrong answer was called converged."""
    return int(look("closed flows", flows()) + look("shifted Laplacians", shifted_laplacians()) > 0)


if __name__ == "__main__":
    raise SystemExit(main())

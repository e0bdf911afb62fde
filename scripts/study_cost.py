"""What a chip would cost: heat, Poisson and vorticity at 10⁴ to 10⁶ unknowns, against two digital rivals.

    .venv/bin/python scripts/study_cost.py [--largest 1e6] [--page-only]

Each case is solved twice with -ksp_type analog (the second solve finds the tiles programmed) and once with CG + GAMG to
the same true residual, whose flops PETSc counts and whose bytes are counted level by level. The counts go to
docs/cost.json, the estimates of analogpde.cost to docs/images/cost_*.png and the section `cost` of docs/cost.md.
Cases that are in the file are not run again (--again does). A quarter of an hour on one core with the largest.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from published import INK, ROOT, figure, save, table, write_section

import analogpde
from analogpde.cost import CONSTANTS, Ledger, Run
from analogpde.cost.model import (
    NOMINAL,
    analog_area,
    analog_energy,
    analog_time,
    break_even,
    extremes,
    gpu,
    programming_energy,
    programming_time,
    ratios,
    sensitivity,
    sram,
)

DATA, PAGE = ROOT / "docs" / "cost.json", ROOT / "docs" / "cost.md"
CHIP = "rram128"
WRITTEN = ("cells_written", "tiles_programmed", "tiles_reprogrammed", "write_pulses", "pulses_in_turn")
Case = dict[str, Any]


def sphere(level: int) -> sp.csr_matrix:
    """Return the stiffness matrix of linear elements on the flat triangles of an icosphere: the stream function's."""
    from analogpde.fem.sphere import icosphere

    points, faces = icosphere(level)
    rows, columns, values = [], [], []
    for k in range(3):
        a, b, c = points[faces[:, k]], points[faces[:, (k + 1) % 3]], points[faces[:, (k + 2) % 3]]
        u, v = b - a, c - a  # the angle at a weighs the edge b–c
        cotangent = 0.5 * np.einsum("ij,ij->i", u, v) / np.linalg.norm(np.cross(u, v), axis=1)
        i, j = faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        rows += [i, j, i, j]
        columns += [j, i, i, j]
        values += [-cotangent, -cotangent, cotangent, cotangent]
    shape = (len(points), len(points))
    return sp.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def stencil(name: str, unknowns: int) -> sp.csr_matrix:
    """Return a matrix of the scaling study."""
    from bench_cases import PROBLEMS

    system = PROBLEMS[name][1](unknowns)
    return system.rows(0, system.size)


CASES: dict[str, dict[str, Any]] = {
    "Poisson": {"10⁴": partial(stencil, "poisson2", 10**4), "10⁵": partial(stencil, "poisson2", 10**5),
                "10⁶": partial(stencil, "poisson2", 10**6)},
    "heat": {"10⁴": partial(stencil, "heat", 10**4), "10⁵": partial(stencil, "heat", 10**5),
             "10⁶": partial(stencil, "heat", 10**6)},
    "vorticity": {"10⁴": partial(sphere, 5), "10⁵": partial(sphere, 7), "10⁶": partial(sphere, 8)},
}


def measure(problem: str, size: str) -> Case:
    """Solve one case both ways and return its counts."""
    sys.argv = sys.argv[:1]  # PETSc reads the command line
    import analogpde.petsc
    from analogpde.petsc.stack import PETSc

    assert analogpde.petsc
    PETSc.Log.begin()
    csr = CASES[problem][size]()
    n = csr.shape[0]
    matrix = PETSc.Mat().createAIJ(size=csr.shape, csr=(csr.indptr, csr.indices, csr.data))
    b = matrix.createVecRight()
    b.array[:] = np.random.default_rng(0).standard_normal(n)
    if problem == "vorticity":
        space = PETSc.NullSpace().create(constant=True)
        matrix.setNullSpace(space)
        matrix.setNearNullSpace(space)
        space.remove(b)
    x = b.duplicate()
    records = []
    ksp = PETSc.KSP().create()
    PETSc.Options()["analog_chip"] = CHIP
    ksp.setType("analog")
    ksp.setOperators(matrix)
    ksp.setFromOptions()
    for _ in range(2):
        x.set(0.0)
        ksp.solve(b, x)
        records.append(analogpde.petsc.log.session().solves[""].worst)
        analogpde.petsc.log.session().solves.clear()
    ksp.destroy()
    rival = PETSc.KSP().create()
    rival.setType("cg")
    rival.getPC().setType("gamg")
    rival.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    rival.setOperators(matrix)
    rival.setTolerances(rtol=records[1].relative_residual, max_it=500)
    rival.setUp()
    x.set(0.0)
    before = PETSc.Log.getFlops()
    rival.solve(b, x)
    flops = PETSc.Log.getFlops() - before
    moved, kernels = gamg_traffic(rival)
    its = rival.getIterationNumber()
    return {"problem": problem, "size": size, "unknowns": n, "entries": csr.nnz,
            "iterations": records[1].iterations, "reason": records[1].converged_reason,
            "residual": records[1].relative_residual, "first": records[0].operations.as_dict(),
            "second": records[1].operations.as_dict(), "gamg_iterations": its, "gamg_flops": flops,
            "gamg_bytes": moved * its, "gamg_kernels": kernels * its, "gamg_reason": rival.getConvergedReason()}


def gamg_traffic(ksp: Any) -> tuple[float, float]:
    """Return bytes and kernels of one iteration of CG + GAMG.

    On each level Chebyshev takes two steps before and two after, each a product and the diagonal (Jacobi), and one
    residual; prolongation and restriction once each; vectors are streamed (no fusion but that of product and update).
    """
    moved = kernels = 0.0
    pc = ksp.getPC()
    levels = pc.getMGLevels()
    for level in range(levels):
        a = pc.getMGSmoother(level).getOperators()[0]
        n, nonzeros = a.getSize()[0], a.getInfo()["nz_used"]
        if level == 0:
            moved, kernels = moved + 12.0 * nonzeros, kernels + 2
            continue
        p = pc.getMGInterpolation(level).getInfo()["nz_used"]
        moved += 5 * (12.0 * nonzeros + 40.0 * n) + 2 * (12.0 * p + 24.0 * n)
        kernels += 5 * 2 + 2
    fine = ksp.getOperators()[0]
    moved += 12.0 * fine.getInfo()["nz_used"] + 12 * 8.0 * fine.getSize()[0]
    return moved, kernels + 8


def run_of(case: Case, right_hand_sides: int = 1) -> Run:
    """Return a run with one programming and so many solves like the second one measured."""
    programming = {name: value for name, value in case["first"].items()
                   if name in WRITTEN}
    counts = {name: value * right_hand_sides for name, value in case["second"].items()}
    chip = analogpde.load_chip(CHIP)
    return Run(Ledger(**{**counts, **programming}), 1, right_hand_sides, case["iterations"] * right_hand_sides,
               case["unknowns"], case["entries"], 1, chip.tile_size, chip.adc.bits, chip.amplifier.gain_bandwidth,
               case["gamg_flops"] * right_hand_sides, case["gamg_bytes"] * right_hand_sides,
               case["gamg_kernels"] * right_hand_sides)


def dense_case(n: int = 64) -> Run:
    """Return the counts of a dense Gram matrix of condition 3 on one tile: what INV circuits were made for."""
    rng = np.random.default_rng(0)
    g = rng.standard_normal((16 * n, n))
    matrix = analogpde.program(g.T @ g / (16 * n), chip=analogpde.load_chip("rram128").replace(tile_size=n))
    first, second = (matrix.solve(np.ones(n), rtol=1e-6).statistics for _ in range(2))
    counts = {**second.operations.as_dict(), **{name: getattr(first.operations, name) for name in WRITTEN}}
    # its residuals are dense: n² products in the host too; no GAMG for it
    return Run(Ledger(**counts), 1, 1, second.iterations, n, n * n, 1, n, 8)


def si(value: float) -> str:
    """Return three digits with an SI prefix."""
    if value <= 0 or not math.isfinite(value):
        return "never" if value > 0 else "0"
    for prefix, scale in (("", 1.0), ("m", 1e-3), ("µ", 1e-6), ("n", 1e-9)):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value / 1e-12:.3g} p"


def parts(energies: dict[str, float]) -> str:
    """Return the shares of the three largest components."""
    total = sum(energies.values())
    largest = sorted(energies.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {value / total:.0%}" for name, value in largest if value > 0.005 * total)


def text(cases: list[Case]) -> str:
    """Return the section of the page."""
    rows, times, breaks = [], [], []
    for case in cases:
        run, name = run_of(case), f"{case['problem']}, {case['unknowns']:,}"
        energies = {memory: analog_energy(run, memory, NOMINAL) for memory in ("hbm", "sram")}
        rows.append([name, f"{case['iterations']} / {case['gamg_iterations']}",
                     *(f"{si(sum(energies[m].values()))}J ({parts(energies[m])})" for m in ("hbm", "sram")),
                     f"{si(gpu(run, NOMINAL)[0])}J", f"{si(sram(run, NOMINAL)[0])}J",
                     f"{si(programming_energy(run, NOMINAL))}J"])
        times.append([name, *(f"{si(sum(analog_time(run, m, NOMINAL).values()))}s" for m in ("hbm", "sram")),
                      f"{si(gpu(run, NOMINAL)[1])}s", f"{si(sram(run, NOMINAL)[1])}s",
                      f"{si(programming_time(run, NOMINAL))}s",
                      f"{1e6 * sum(analog_area(run, NOMINAL).values()):,.0f} mm²"])
        reused = run_of(case, 1000)
        found, ends = ratios(reused, NOMINAL), extremes(reused)
        breaks.append([name, *(
            f"{found[f'energy_{m}']:.2g} ({ends[m][0]:.2g} … {ends[m][1]:.2g})" for m in ("hbm", "sram")),
            *(f"{found[f'time_{m}']:.2g}" for m in ("hbm", "sram")),
            *(wins(break_even(run, m, NOMINAL)) for m in ("hbm", "sram"))])
    dense = dense_case()
    counts = {name: value * (1 if name in WRITTEN else 1000) for name, value in dense.operations.as_dict().items()}
    many = dataclasses.replace(dense, operations=Ledger(**counts), right_hand_sides=1000,
                               iterations=1000 * dense.iterations)
    breaks.append(["dense Gram matrix, 64 × 64", "—",
                   f"{ratios(many, NOMINAL)['energy_sram']:.2g} ({extremes(many)['sram'][0]:.2g} … "
                   f"{extremes(many)['sram'][1]:.2g})", "—", f"{ratios(many, NOMINAL)['time_sram']:.2g}", "—",
                   wins(break_even(dense, "sram", NOMINAL))])
    shots = tile_shots(cases, dense)
    constants = [[f"`{name}`", c.meaning, f"{c.value:.3g}", f"{c.low:.3g} … {c.high:.3g}", c.unit, c.source,
                  c.confidence] for name, c in CONSTANTS.items()]
    return "\n\n".join([
        "**Energy of one solve** to FP32-equivalent, programming apart.",
        table(["problem, unknowns", "iterations, chip / CG + GAMG", "chip, GPU as host", "chip, SRAM host",
               "GPU, CG + GAMG", "stored inverses in SRAM", "programming"], rows),
        "**Time** of one solve, and the area of the tiles.",
        table(["problem, unknowns", "chip, GPU as host", "chip, SRAM host", "GPU", "SRAM", "programming", "tiles"],
              times),
        "**What the rival needs over what the chip needs**, a thousand right-hand sides for each programming; above 1 "
        "the chip is better. In brackets: every constant at the end of its range that is worst, and best, for the "
        "chip. Behind it the number of right-hand sides from which on programming has paid off in energy.",
        table(["problem, unknowns", "energy, against GPU", "energy, against SRAM", "time, GPU", "time, SRAM",
               "pays off against GPU", "against SRAM"], breaks),
        "**One shot of a tile** against one product with its stored inverse.",
        table(["tile", "lines", "1/λ_min(D⁻¹G)", "amplifiers", "converters", "stored inverse, 8 or 16 bits"], shots),
        "**The constants.**",
        table(["name", "what", "value", "range", "unit", "source", "confidence"], constants)])


def wins(count: float) -> str:
    """Return a number of right-hand sides in words."""
    return "never" if math.isinf(count) else "at once" if count < 1 else f"{count:,.0f}"


def tile_shots(cases: list[Case], dense: Run) -> list[list[str]]:
    """Return per shot what the amplifiers, the converters and a stored inverse need."""
    rows = []
    for name, run in [(f"{case['problem']}, {case['unknowns']:,}", run_of(case)) for case in cases] + [
            ("dense Gram matrix, 64 × 64", dense)]:
        o, parts = run.operations, analog_energy(run, "sram", NOMINAL)
        rows.append([name, f"{o.dac_conversions / o.inv_shots:.0f}",
                     f"{o.amplifier_settlings / o.dac_conversions:.3g}", f"{si(parts['amplifiers'] / o.inv_shots)}J",
                     f"{si(parts['converters'] / o.inv_shots)}J",
                     f"{si(o.inv_products * NOMINAL['mac'] / o.inv_shots)}J"])
    return rows


def draw(cases: list[Case]) -> None:
    """Write the figures."""
    drawn, axes = figure(2, 3.8)
    for axis, memory, name in zip(axes, ("hbm", "sram"), ("a GPU with CG + GAMG", "stored inverses in SRAM"),
                                  strict=True):
        for k, case in enumerate(cases):
            run = run_of(case, 1000)
            low, high = extremes(run)[memory]
            axis.vlines(k, low, high, color=INK["grey"], linewidth=1)
            bars = sensitivity(run)
            ends = [value for bar in bars for value in bar[memory]]
            axis.vlines(k, min(ends), max(ends), color=INK["ours"], linewidth=6, alpha=0.5)
            axis.plot(k, ratios(run, NOMINAL)[f"energy_{memory}"], "o", color=INK["ours"])
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set_yscale("log")
        axis.set_xticks(range(len(cases)), [f"{c['problem']} {c['size']}" for c in cases], rotation=60,
                        ha="right", rotation_mode="anchor")
        axis.set(title=f"against {name}")
    axes[0].set_ylabel("energy of the rival / energy of the chip")
    save(drawn, "cost_ratios.png")
    chosen = next((c for c in cases if c["problem"] == "heat" and c["size"] == "10⁵"), cases[-1])
    drawn, axes = figure(2, 4.2)
    run = run_of(chosen, 1000)
    for axis, memory, name in zip(axes, ("hbm", "sram"), ("GPU", "SRAM"), strict=True):
        bars = sorted(sensitivity(run), key=lambda bar, m=memory: -abs(math.log(bar[m][1] / bar[m][0])))[:12]
        for k, bar in enumerate(bars):
            axis.hlines(k, *sorted(bar[memory]), color=INK["ours"], linewidth=7, alpha=0.6)
        axis.axvline(ratios(run, NOMINAL)[f"energy_{memory}"], color=INK["ours"], linewidth=1)
        axis.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
        axis.set_xscale("log")
        axis.set_yticks(range(len(bars)), [bar["constant"].replace("_", " ") for bar in bars])
        axis.set_ylim(len(bars) - 0.5, -0.5)
        axis.set(title=f"heat 10⁵, against {name}", xlabel="energy of the rival / energy of the chip")
    save(drawn, "cost_sensitivity.png")


def main() -> int:
    """Run what is missing, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1e6, metavar="UNKNOWNS", help="skip larger cases")
    parser.add_argument("--again", action="store_true", help="run cases again that are in docs/cost.json")
    parser.add_argument("--page-only", action="store_true", help="write the page from the data, run nothing")
    arguments = parser.parse_args()
    if not arguments.largest >= 1e4:
        parser.error(f"--largest {arguments.largest:g}: the smallest case has 1e4 unknowns")
    known: dict[str, Case] = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    for exponent, size in ((4, "10⁴"), (5, "10⁵"), (6, "10⁶")):
        for problem in CASES:
            name = f"{problem} {size}"
            if arguments.page_only or 10**exponent > arguments.largest or (name in known and not arguments.again):
                continue
            known[name] = measure(problem, size)
            DATA.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{name}: {known[name]['iterations']} iterations, CG + GAMG {known[name]['gamg_iterations']}",
                  flush=True)
    cases = [known[f"{problem} {size}"] for problem in CASES for size in CASES[problem] if f"{problem} {size}" in known]
    draw(cases)
    write_section("cost", text(cases), PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

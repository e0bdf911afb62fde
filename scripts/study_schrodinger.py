"""Make the tables of the Schrödinger equation in docs/problems.md: chips and FP64 solves beside the exact levels.

    .venv/bin/python scripts/study_schrodinger.py [--quick] [--ranks 1]

--quick takes coarse meshes, some seconds a case, and only prints. A full run takes some twenty minutes with two ranks
and writes the tables between their marks in docs/problems.md. Every case is problems/schrodinger.py, read from its
report.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "problems.md"
BEGIN, END = "<!-- schrodinger: begin -->", "<!-- schrodinger: end -->"

LU = "-ksp_type preonly -pc_type lu -pc_factor_mat_solver_type mumps"
CG = "-ksp_type cg -pc_type gamg -ksp_rtol 1e-10"
CHIPS = {"rram128": "-analog_chip rram128", "pku2025": "-analog_chip pku2025"}

HYDROGEN = "-case hydrogen -dim 3 -quadrant -degree 4 -states 1 -box 11 -grade 2.6"
"""The lowest state has no use for the wide box of the default (its tail beyond 11 bohr is worth 1e-7 of the energy),
and meshes of a dozen cells a side want a grading between none and theory's 2.9, which speaks of fine ones."""

LEVELS = (  # title, options, cells per side: full and quick, digital solver
    ("harmonic, 2-D", "-case harmonic -states 6", 64, 16, LU),
    ("double well, 2-D", "-case double_well -states 4", 64, 16, LU),
    ("hydrogen, 2-D, quadrant", "-case hydrogen -quadrant -states 2", 48, 16, LU),
    ("harmonic, 3-D, octant, degree 4", "-case harmonic -dim 3 -quadrant -degree 4 -states 1", 8, 2, LU),
    ("hydrogen, 3-D, octant, degree 4", HYDROGEN, 12, 3, CG),
)
ORDERS = (
    ("harmonic, 2-D", "-case harmonic -states 1", {1: 32, 2: 16, 3: 16, 4: 8}),
    ("double well, 2-D", "-case double_well -states 1", {1: 64, 2: 32, 3: 16, 4: 16}),
    ("hydrogen, 2-D, quadrant", "-case hydrogen -quadrant -states 1", {1: 64, 2: 32, 3: 16, 4: 8}),
    ("harmonic, 3-D, octant", "-case harmonic -dim 3 -quadrant -states 1", {1: 8, 2: 6, 3: 4, 4: 4}),
)
CHEAP = "-method inverse_iteration -ksp_rtol 1e-2"
"""How the chips find the levels: the table of tolerances shows that it costs no digits."""
TOLERANCES = ("1e-1", "1e-2", "1e-4", "1e-6", "")
PACKETS = (("harmonic", "-case harmonic", 16, 8), ("double well", "-case double_well", 16, 8))


def run(options: str, ranks: int) -> dict[str, Any]:
    """Run the script and return its report."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, str(ROOT / "problems" / "schrodinger.py"), *options.split(), "-out", folder,
                 "-snapshots", "0", "-picture", "no"]
        if ranks > 1:
            words = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks), *words]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
        return dict(json.loads((Path(folder) / "report.json").read_text()))


def answers(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the answers of a report by name."""
    return {entry["name"]: entry for entry in report["problem"]["results"]}


def row(*cells: object) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def head(*cells: str) -> list[str]:
    """Return the head of a table."""
    return [row(*cells), row(*["---"] * len(cells))]


def iterations(report: dict[str, Any]) -> str:
    """Return solves and outer iterations of the run's only matrix."""
    solve = report["solves"][0]
    return f"{solve['count']} × {solve['iterations_total'] / solve['count']:.1f}"


def level_table(quick: bool, ranks: int) -> list[str]:
    """Return the levels on both chips and with FP64 solves beside the exact ones."""
    lines = head("case", "exact", *CHIPS, "FP64 solves", "error (FP64)", "chips − FP64",
                 "solves × iterations")
    for title, options, full, coarse, digital in LEVELS:
        n = coarse if quick else full
        reports = {name: run(f"{options} -n {n} {more}", ranks)
                   for name, more in (*((name, f"{CHEAP} {chip}") for name, chip in CHIPS.items()), ("", digital))}
        found = {name: answers(report) for name, report in reports.items()}
        for i in itertools.count():
            name = f"level {i}"
            if name not in found[""]:
                break
            exact, fp64 = found[""][name]["expected"], found[""][name]["value"]
            values = [found[chip][name]["value"] for chip in CHIPS]
            gap = max(abs(value / fp64 - 1) for value in values)
            work = ", ".join(iterations(reports[chip]) for chip in CHIPS) if i == 0 else ""
            lines.append(row(f"{title}, n = {n}" if i == 0 else "", f"{exact:.9f}", *[f"{v:.9f}" for v in values],
                             f"{fp64:.9f}", f"{fp64 / exact - 1:.1e}", f"{gap:.0e}", work))
        print("\n".join(lines), flush=True)
    return lines


def order_table(quick: bool, ranks: int) -> list[str]:
    """Return the order of convergence of the lowest level by case and degree."""
    lines = head("order of the lowest level (error on the finer mesh)", *[f"degree {p}: theory {2 * p}"
                                                                         for p in (1, 2, 3, 4)])
    for title, options, cells in ORDERS:
        entries = []
        for degree, n in cells.items():
            found = answers(run(f"{options} -degree {degree} -n {n if not quick else max(2, n // 2)} -refine 2 {LU}",
                                ranks))
            order = found["order of the lowest level's error"]["value"]
            error = found["largest relative error of a level"]["value"]
            entries.append(f"{order:.2f} ({error:.0e}, n = {2 * n})")
        lines.append(row(title, *entries))
    print("\n".join(lines), flush=True)
    return lines


def tolerance_table(quick: bool, ranks: int) -> list[str]:
    """Return what the accuracy of the inner solves does to the energies."""
    lines = head("`-ksp_rtol`", *[f"{method}: {what}" for method in ("shift_invert", "inverse_iteration")
                                  for what in ("solves × iterations", "energies differ from FP64 by")])
    for tolerance in TOLERANCES:
        cells = []
        for method in ("shift_invert", "inverse_iteration"):
            report = run(f"-n {8 if quick else 16} -states 3 -method {method} -verify "
                         + (f"-ksp_rtol {tolerance}" if tolerance else ""), ranks)
            gap = answers(report)["largest relative difference from FP64 solves"]["value"]
            cells += [iterations(report), f"{gap:.0e}"]
        lines.append(row(tolerance or "FP32-equivalent", *cells))
    print("\n".join(lines), flush=True)
    return lines


def packet_table(quick: bool, ranks: int) -> list[str]:
    """Return the wave packets after a period or half of one."""
    names = ("relative L2 error of the wave function", "relative change of the norm", "relative change of the energy",
             "overlap with the first state")
    lines = head("packet", "solver", "L2 error", "norm", "energy", "overlap (exact)", "solves × iterations")
    for title, options, full, coarse in PACKETS:
        steps = "-t_end 0.5" if quick else ""
        for solver, more in (*CHIPS.items(), ("FP64", LU)):
            report = run(f"-mode time {options} -n {coarse if quick else full} {steps} {more}", ranks)
            found = answers(report)
            error, norm, energy, overlap = (found[name]["value"] for name in names)
            lines.append(row(title, solver, f"{error:.1e}", f"{norm:+.0e}", f"{energy:+.0e}",
                             f"{overlap:.6f} ({found[names[3]]['expected']:.6f})",
                             iterations(report) if solver in CHIPS else ""))
    print("\n".join(lines), flush=True)
    return lines


def main() -> None:
    """Run all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="coarse meshes; print only")
    parser.add_argument("--ranks", type=int, default=1, help="MPI ranks of every run")
    arguments = parser.parse_args()
    made = [table(arguments.quick, arguments.ranks)
            for table in (tolerance_table, order_table, packet_table, level_table)]
    if not arguments.quick:
        text = PAGE.read_text()
        before, after = text[: text.index(BEGIN)], text[text.index(END):]
        tolerance, order, packets, levels = ("\n".join(lines) for lines in made)
        PAGE.write_text(f"{before}{BEGIN}\n{levels}\n\n{order}\n\n{tolerance}\n\n{packets}\n{after}")


if __name__ == "__main__":
    main()

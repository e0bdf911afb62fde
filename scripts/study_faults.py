"""Make docs/images/faults.png and the tables of docs/faults.md: iterations against faults and age of the chip.

    .venv/bin/python scripts/study_faults.py [--quick] [--missing] [--page]

Each case reaches FP32 or is refused with a reason. One that is called converged and is further than 2^-23 from the FP64
solution ends the script with exit code 1. --quick takes two rates of each kind and only prints; a full run takes some
minutes on one core and writes docs/faults.json. --missing runs what is not in that file; --page makes figure and tables
from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import analogpde.petsc  # noqa: F401 - first: it loads MPI and PETSc in the order they need

# isort: split
import numpy as np
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from dolfinx.fem.petsc import assemble_matrix, assemble_vector
from mpi4py import MPI
from petsc4py import PETSc

from analogpde.errors import cause
from analogpde.petsc import session

ROOT = Path(__file__).resolve().parent.parent
PAGE, DATA, FIGURE = (ROOT / "docs" / name for name in ("faults.md", "faults.json", "images/faults.png"))
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
FP32 = 2.0**-23

PROBLEMS = {"Poisson 2-D": (2, 64, None), "Poisson 3-D": (3, 16, None), "heat 2-D": (2, 64, 0.01)}
"""Dimension, cells a side, time step."""
FAULTS = {  # options that take the rate, percent
    "stuck cells": (("stuck_low", 0.5), ("stuck_high", 0.5)),
    "dead rows and columns": (("dead_rows", 0.5), ("dead_columns", 0.5)),
    "dead tiles": (("dead_tiles", 1.0),),
    "dead tiles, no spares": (("dead_tiles", 1.0),),
}
BESIDE = {"dead tiles, no spares": {"analog_spares": "0"}}
RATES = {"stuck cells": (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 40.0),
         "dead rows and columns": (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0),
         "dead tiles": (1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0),
         "dead tiles, no spares": (0.1, 0.5, 1.0, 2.0, 5.0)}
AGES = {"fresh": 0.0, "hour": 3600.0, "day": 86400.0, "month": 2.6e6, "year": 3.156e7, "century": 3.156e9}
CHIPS, AGEING = ("rram128", "pku2025"), ("rram128", "pku2025", "pcm", "fefet")


def cases(quick: bool) -> list[tuple[str, str, str, float]]:
    """Return what to run: problem, chip, kind and percent, or age in seconds."""
    found: list[tuple[str, str, str, float]] = []
    for problem in list(PROBLEMS)[: 1 if quick else None]:
        for chip in AGEING if not quick else AGEING[:1]:
            found.append((problem, chip, "none", 0.0))
            if chip in CHIPS:
                for kind, rates in RATES.items():
                    found += [(problem, chip, kind, rate) for rate in rates[-2 if quick else 0:]]
            found += [(problem, chip, "age", age) for age in list(AGES.values())[-2 if quick else 1:]]
    return found


class Problem:
    """A system of P1 elements, its FP64 solution, and how to solve it on a chip."""

    def __init__(self, name: str) -> None:
        dim, cells, step = PROBLEMS[name]
        box = [dmesh.create_unit_square, dmesh.create_unit_cube][dim - 2](MPI.COMM_SELF, *[cells] * dim)
        space = fem.functionspace(box, ("Lagrange", 1))
        u, v, x = ufl.TrialFunction(space), ufl.TestFunction(space), ufl.SpatialCoordinate(box)
        self._space = space  # a mesh that dies takes its communicator along
        form = ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
        if step is not None:
            form += u * v / step * ufl.dx
        border = fem.locate_dofs_geometrical(space, lambda p: (np.minimum(p, 1 - p)[:dim] < 1e-9).any(axis=0))
        fixed = fem.dirichletbc(0.0, border, space)
        self.matrix = assemble_matrix(fem.form(form), bcs=[fixed])
        self.matrix.assemble()
        self.rhs = assemble_vector(fem.form(ufl.exp(x[0]) * ufl.sin(3 * x[1]) * v * ufl.dx))
        self.rhs.array[border] = 0.0
        self.exact = self.rhs.duplicate()
        direct = PETSc.KSP().create(MPI.COMM_SELF)
        direct.setOperators(self.matrix)
        direct.setType("preonly")
        direct.getPC().setType("lu")
        direct.solve(self.rhs, self.exact)

    def solve(self, options: dict[str, str]) -> dict[str, Any]:
        """Return how a solve with these options went."""
        database = PETSc.Options("study_")
        for name, value in options.items():
            database[name] = value
        solver = PETSc.KSP().create(MPI.COMM_SELF)
        solver.setOptionsPrefix("study_")
        solver.setOperators(self.matrix)
        solver.setType("analog")
        x = self.rhs.duplicate()
        try:
            solver.setFromOptions()
            solver.solve(self.rhs, x)
        except PETSc.Error as error:
            said = cause(error)
            if said is None:
                raise
            return {"converged": False, "reason": str(said)}
        finally:
            for name in options:
                database.delValue(name)
        record = session().solves.pop("study_").worst
        x.axpy(-1.0, self.exact)
        counts = record.operations
        return {"converged": solver.getConvergedReason() > 0, "reason": record.converged_reason,
                "iterations": solver.getIterationNumber(), "forward_error": x.norm() / self.exact.norm(),
                "tiles": counts.tiles_programmed - counts.tiles_reprogrammed, "rewritten": counts.tiles_reprogrammed,
                "replaced": counts.tiles_replaced}


def run(problem: Problem, name: str, chip: str, kind: str, amount: float) -> dict[str, Any]:
    """Run one case and return what became of it."""
    options = {"analog_chip": chip} | BESIDE.get(kind, {})
    if kind == "age":
        options["analog_time"] = f"{amount:g}"
    for fault, share in FAULTS.get(kind, ()):
        options[f"analog_{fault}"] = f"{share * amount / 100:g}"
    return {"problem": name, "chip": chip, "kind": kind, "amount": amount} | problem.solve(options)


def words_of(case: dict[str, Any] | None) -> str:
    """Return a case as a cell of a table: iterations, and tiles on spares; or the refusal."""
    if case is None:
        return ""
    if not case["converged"]:
        return "refused"
    spares = f" ({case['replaced']} on spares)" if case["replaced"] else ""
    return f"{case['iterations']}{spares}"


def tables(results: list[dict[str, Any]]) -> str:
    """Return the tables: iterations to FP32 by rate, and by age."""
    found = {(r["problem"], r["chip"], r["kind"], r["amount"]): r for r in results}
    columns = list(dict.fromkeys((r["problem"], r["chip"]) for r in results if r["kind"] in FAULTS))
    lines = ["| fault | rate | " + " | ".join(f"{p}, {c}" for p, c in columns) + " |",
             "| --- | --- " + "| --- " * len(columns) + "|"]
    rows = [("none", 0.0)] + [(kind, rate) for kind, rates in RATES.items() for rate in rates]
    for kind, rate in rows:
        cells = [words_of(found.get((*column, kind, rate))) for column in columns]
        lines.append(f"| {kind} | {f'{rate:g} %' if rate else ''} | " + " | ".join(cells) + " |")
    lines += ["", "| problem | chip | " + " | ".join(AGES) + " |", "| --- | --- " + "| --- " * len(AGES) + "|"]
    for column in dict.fromkeys((r["problem"], r["chip"]) for r in results if r["kind"] == "age"):
        cells = [words_of(found.get((*column, "age" if age else "none", age))) for age in AGES.values()]
        lines.append(f"| {column[0]} | {column[1]} | " + " | ".join(cells) + " |")
    errors = [r["forward_error"] / FP32 for r in results if r["converged"]]
    refused = [r for r in results if not r["converged"]]
    lines += ["", f"{len(results)} cases: {len(errors)} reach FP32, with a forward error of at most "
              f"{max(errors):.2g} · 2⁻²³; {len(refused)} are refused."]
    if refused:
        lines += ["", "| refused | rates or age in seconds | cases | for example |", "| --- | --- | --- | --- |"]
    for kind in dict.fromkeys(r["kind"] for r in refused):
        mine = [r for r in refused if r["kind"] == kind]
        amounts = ", ".join(f"{a:g}" for a in sorted({r["amount"] for r in mine}))
        lines.append(f"| {kind} | {amounts}{'' if kind == 'age' else ' %'} | {len(mine)} | {mine[0]['reason']} |")
    return "\n".join(lines)


def figure(results: list[dict[str, Any]]) -> None:
    """Draw iterations against each kind of fault and against age."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    kinds = [*FAULTS, "age"]
    plot, axes = plt.subplots(1, len(kinds), figsize=(13, 3.6), sharey=True)
    problems, dashes = list(PROBLEMS), dict(zip(AGEING, ("-", "--", ":", "-."), strict=True))
    series = list(dict.fromkeys((r["problem"], r["chip"]) for r in results))
    top = 1.15 * max(r["iterations"] for r in results if r["converged"])
    for axis, kind in zip(axes, kinds, strict=True):
        for column in series:
            mine = sorted((r["amount"], r["iterations"] if r["converged"] else None) for r in results
                          if (r["problem"], r["chip"]) == column and r["kind"] in (kind, "none"))
            if len(mine) < 2:
                continue
            x = [max(amount, 600.0) if kind == "age" else amount for amount, _ in mine]
            good = [(a, y) for a, (_, y) in zip(x, mine, strict=True) if y is not None]
            if not good:
                continue
            style = {"color": f"C{problems.index(column[0])}", "linestyle": dashes[column[1]]}
            axis.plot(*zip(*good, strict=True), marker="o", markersize=3, linewidth=1.2, **style)
            bad = [a for a, (_, y) in zip(x, mine, strict=True) if y is None]
            axis.plot(bad, [top] * len(bad), "x", color=style["color"], clip_on=False)
        axis.set_title(kind if kind != "age" else "age (drift)", fontsize=9)
        axis.set_xlabel("percent" if kind != "age" else "", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    axes[-1].set_xscale("log")
    axes[-1].set_xticks([600, *list(AGES.values())[1:]], [*AGES], fontsize=8, rotation=45)
    axes[-1].minorticks_off()
    axes[0].set_yscale("log")
    axes[0].set_ylim(5, 1.2 * top)
    axes[0].set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes[0].minorticks_off()
    axes[0].set_ylabel("iterations to FP32 (×: refused)", fontsize=8)
    handles = [Line2D([], [], color=f"C{i}", label=name) for i, name in enumerate(problems)]
    handles += [Line2D([], [], color="black", linestyle=dash, label=chip) for chip, dash in dashes.items()]
    plot.legend(handles=handles, fontsize=8, loc="lower center", ncols=7)
    plot.subplots_adjust(left=0.06, right=0.99, top=0.92, bottom=0.26, wspace=0.08)
    plot.savefig(FIGURE, dpi=110)


def main() -> int:
    """Run the cases, or make the page of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rates of each kind, one problem; print only")
    parser.add_argument("--missing", action="store_true", help="only cases that are not in docs/faults.json")
    parser.add_argument("--page", action="store_true", help="figure and tables from docs/faults.json, without running")
    for argument in sys.argv[1:]:  # PETSc, which was here first, would warn of options that nobody used
        PETSc.Options().delValue(argument)
    arguments = parser.parse_args()
    kept = arguments.page or arguments.missing
    results: list[dict[str, Any]] = json.loads(DATA.read_text()) if kept else []
    if not arguments.page:
        done = {(r["problem"], r["chip"], r["kind"], r["amount"]) for r in results}
        wanted = [case for case in cases(arguments.quick) if case not in done]
        problems = {name: Problem(name) for name in dict.fromkeys(case[0] for case in wanted)}
        for case in wanted:
            results.append(run(problems[case[0]], *case))
            print(f"{len(results) - len(done)} of {len(wanted)}: {', '.join(map(str, case))}: {words_of(results[-1])} "
                  f"{results[-1]['reason']}", flush=True)
    wrong = [r for r in results if r["converged"] and not r["forward_error"] <= FP32]
    for case in wrong:
        print(f"WRONG: {case}")
    print(tables(results))
    if not arguments.quick and not wrong:
        DATA.write_text(json.dumps(results, indent=1) + "\n")
        figure(results)
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        _, after = rest.split(END)
        PAGE.write_text(f"{before}{BEGIN}\n{tables(results)}\n{END}{after}", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

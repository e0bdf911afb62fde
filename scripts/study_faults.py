"""Make docs/images/faults.png and the tables of docs/faults.md: iterations against faults and age of the chip.

    .venv/bin/python scripts/study_faults.py [--quick] [--page]

Each case is a problem script with -verify, read from its report: it reaches FP32, or is refused with a reason. A case
that is called converged and is further than 2^-23 from the FP64 solution ends the script with exit code 1. --quick
takes two rates of each kind and only prints; a full run takes about ten minutes on one core and writes
docs/faults.json. --page makes figure and tables from that file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE, DATA, FIGURE = (ROOT / "docs" / name for name in ("faults.md", "faults.json", "images/faults.png"))
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
FP32 = 2.0**-23

PROBLEMS = {
    "Poisson 2-D": "poisson.py -n 64",
    "Poisson 3-D": "poisson.py -dim 3 -n 16",
    "heat 2-D": "heat.py -case box -dim 2 -n 48 -steps 4",
}
FAULTS = {  # options that take the rate, percent
    "stuck cells": (("stuck_low", 0.5), ("stuck_high", 0.5)),
    "dead rows and columns": (("dead_rows", 0.5), ("dead_columns", 0.5)),
    "dead tiles": (("dead_tiles", 1.0),),
}
RATES = {"stuck cells": (0.5, 1.0, 2.0, 3.0, 5.0), "dead rows and columns": (0.5, 1.0, 2.0, 5.0),
         "dead tiles": (1.0, 2.0, 5.0, 10.0)}
AGES = {"fresh": 0.0, "hour": 3600.0, "day": 86400.0, "month": 2.6e6, "year": 3.156e7}
CHIPS, AGEING = ("rram128", "pku2025"), ("rram128", "pku2025", "pcm", "fefet")


def cases(quick: bool) -> list[tuple[str, str, str, float]]:
    """Return what to run: problem, chip, kind and percent, or age in seconds."""
    found: list[tuple[str, str, str, float]] = []
    for problem in list(PROBLEMS)[: 1 if quick else None]:
        first = problem == "Poisson 2-D" and not quick  # in all rates, the others in the two highest
        for chip in AGEING if first else AGEING[:1]:
            found.append((problem, chip, "none", 0.0))
            if chip in CHIPS:
                for kind, rates in RATES.items():
                    found += [(problem, chip, kind, rate) for rate in rates[0 if chip == CHIPS[0] and first else -2:]]
            found += [(problem, chip, "age", age) for age in list(AGES.values())[1 if first else -2:]]
    return found


def run(problem: str, chip: str, kind: str, amount: float) -> dict[str, Any]:
    """Run one case and return what its report says of the hardest solve."""
    words = PROBLEMS[problem].split()
    options = ["-analog_chip", chip]
    if kind == "age":
        options += ["-analog_time", f"{amount:g}"]
    for name, share in FAULTS.get(kind, ()):
        options += [f"-analog_{name}", f"{share * amount / 100:g}"]
    case: dict[str, Any] = {"problem": problem, "chip": chip, "kind": kind, "amount": amount}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(ROOT / "problems" / words[0]), *words[1:], "-verify", "-picture", "no", "-snapshots",
             "0", "-out", folder, *options], capture_output=True, text=True, check=False)
        report = Path(folder) / "report.json"
        if not report.exists() or not json.loads(report.read_text())["solves"]:
            said = [line for line in done.stderr.splitlines() if "tile" in line or "analogpde" in line]
            if not said:
                raise SystemExit(f"{case}\n{done.stderr}")
            return case | {"converged": False, "reason": said[-1].strip()}
        data = json.loads(report.read_text())
    solve = data["solves"][0]
    counts = data["totals"]
    return case | {
        "converged": solve["failures"] == 0 and solve["converged_reason"].startswith("CONVERGED"),
        "reason": solve["converged_reason"], "iterations": solve["iterations"], "unknowns": solve["unknowns"],
        "forward_error": solve["forward_error"], "tiles": counts["tiles_programmed"] - counts["tiles_reprogrammed"],
        "rewritten": counts["tiles_reprogrammed"], "replaced": counts["tiles_replaced"]}


def words_of(case: dict[str, Any] | None) -> str:
    """Return a case as a cell of a table: iterations, and tiles on spares; or the refusal."""
    if case is None:
        return ""
    if not case["converged"]:
        return "refused"
    spares = f" ({case['replaced']} of {case['tiles']} on spares)" if case["replaced"] else ""
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
    refused = sum(not r["converged"] for r in results)
    lines += ["", f"{len(results)} cases: {len(errors)} reach FP32, with a forward error of at most "
              f"{max(errors):.2g} · 2⁻²³; {refused} are refused."]
    return "\n".join(lines)


def figure(results: list[dict[str, Any]]) -> None:
    """Draw iterations against each kind of fault and against age."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    kinds = [*FAULTS, "age"]
    plot, axes = plt.subplots(1, 4, figsize=(11, 3.1), sharey=True, layout="constrained")
    series = list(dict.fromkeys((r["problem"], r["chip"]) for r in results))
    top = 1.3 * max(r["iterations"] for r in results if r["converged"])
    for axis, kind in zip(axes, kinds, strict=True):
        for number, column in enumerate(series):
            mine = sorted((r["amount"], r["iterations"] if r["converged"] else None) for r in results
                          if (r["problem"], r["chip"]) == column and r["kind"] in (kind, "none"))
            if len(mine) < 2:
                continue
            x = [max(amount, 600.0) if kind == "age" else amount for amount, _ in mine]
            good = [(a, y) for a, (_, y) in zip(x, mine, strict=True) if y is not None]
            style = {"color": f"C{series.index((series[number][0], 'rram128'))}",
                     "linestyle": {"rram128": "-", "pku2025": "--", "pcm": ":", "fefet": "-."}[column[1]]}
            axis.plot(*zip(*good, strict=True), marker="o", markersize=3, linewidth=1.2, label=", ".join(column),
                      **style)
            bad = [a for a, (_, y) in zip(x, mine, strict=True) if y is None]
            axis.plot(bad, [top] * len(bad), "x", color=style["color"], clip_on=False)
        axis.set_title(kind if kind != "age" else "age (drift)", fontsize=9)
        axis.set_xlabel("percent" if kind != "age" else "", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    axes[3].set_xscale("log")
    axes[3].set_xticks([600, *list(AGES.values())[1:]], ["fresh", "hour", "day", "month", "year"], fontsize=8)
    axes[3].minorticks_off()
    axes[0].set_yscale("log")
    axes[0].set_ylim(5, 1.1 * top)
    axes[0].set_ylabel("iterations to FP32 (×: refused)", fontsize=8)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    plot.legend(handles.values(), handles, fontsize=7, loc="outside lower center", ncols=6)
    plot.savefig(FIGURE, dpi=110)


def main() -> int:
    """Run the cases, or make the page of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rates of each kind, one problem; print only")
    parser.add_argument("--page", action="store_true", help="figure and tables from docs/faults.json, without running")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = json.loads(DATA.read_text()) if arguments.page else []
    if not arguments.page:
        wanted = cases(arguments.quick)
        for case in wanted:
            results.append(run(*case))
            print(f"{len(results)} of {len(wanted)}: {', '.join(map(str, case))}: {words_of(results[-1])} "
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

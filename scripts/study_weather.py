"""Make docs/weather.md: the standard cases of weather models, on chips and by digital solves, beside published values.

    .venv/bin/python scripts/study_weather.py [--full] [--ranks 1] [--only straka-100,tc2-L3 …] [--solvers …] [--again]

The default takes about ten minutes on two cores, --full some hours. Every case is a problem script, run as a user would
and read from its report. Results are kept in docs/weather.json and not made again (--again does); the page is written
after each case from all that is there, so an interrupted run loses nothing, and --page writes it without running. The
cases of hours are run by --only alone; stopped in the middle, those of shallow_water.py go on from a checkpoint if
asked for again.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]  # the tree that this script is in, installed or not

from results_table import commit  # noqa: E402
from weather_cases import CASES, HAURWITZ, OVER_CONVERGED, SOLVERS, Case  # noqa: E402

DATA, PAGE, IMAGES = ROOT / "docs" / "weather.json", ROOT / "docs" / "weather.md", ROOT / "docs" / "images"

EDITION = {"density_current": 1, "shallow_water": 4}
"""What a script's equations are: results of another edition are made again, and marked on the page until then."""

BUSY = 6.0
"""Load average above which times are not shown."""

OLD = "\\*: with the closure of edition 2, without bounds of potential vorticity; to be made again.\n"


def command(case: Case, solver: str) -> str:
    """Return what a user types for a case."""
    return f"problems/{case.script}.py {case.options} {SOLVERS[solver]}"


def run(name: str, solver: str, ranks: int) -> dict[str, Any]:
    """Run a case and return what its report says, or its error."""
    case = CASES[name]
    with contextlib.ExitStack() as stack:
        more: list[str] = []
        reference = stored(case.reference, "FP64") / "checkpoint.npz"
        if case.reference and reference.exists():
            more = ["-reference", str(reference)]
        if case.by_hand:
            folder = str(stored(name, solver))
            if case.script == "shallow_water":  # no other script has checkpoints
                more = ["-checkpoint", "50"] + ["-restart"] * (Path(folder) / "checkpoint.npz").exists()
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        words = [sys.executable, *command(case, solver).split(), "-snapshots", "0", "-out", folder, *more]
        if ranks > 1:
            beside = Path(sys.executable).with_name("mpirun")
            words = [str(beside) if beside.exists() else "mpirun", "-n", str(ranks), *words]
        started, busy = time.monotonic(), os.getloadavg()[0]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        wall = time.monotonic() - started
        result: dict[str, Any] = {"command": command(case, solver), "ranks": ranks, "wall": round(wall, 1),
                                  "load": [round(busy, 1), round(os.getloadavg()[0], 1)],
                                  "date": datetime.date.today().isoformat(), "commit": commit(),
                                  "edition": EDITION[case.script]}
        report = Path(folder) / "report.json"
        if done.returncode or not report.exists():
            lines = done.stderr.strip().splitlines()
            return result | {"error": lines[-1][:400] if lines else f"exit code {done.returncode}"}
        data = json.loads(report.read_text(encoding="utf-8"))
        if case.picture and solver == "rram128":
            source = Path(folder) / f"{case.script}.png"
            if source.exists():
                for_the_page(source, image(name))
        return result | condensed(data, done.stderr)


def stored(name: str, solver: str) -> Path:
    """Return where the files of a run by hand stay."""
    return ROOT / "results" / "weather" / f"{name}-{solver}"


def condensed(report: dict[str, Any], progress: str) -> dict[str, Any]:
    """Return what of a report is kept.

    Args:
        report: the report.
        progress: what the run said on standard error, where lines tell time at a quarter of the steps and so on.
    """
    told = [(int(done), int(total), float(seconds)) for done, total, seconds in
            re.findall(r"^\w+: (\d+) of (\d+), ([\d.]+) s", progress, re.MULTILINE)]
    step = None
    if len(told) > 1:
        # From the first quarter on: the beginning compiles and programs.
        step = (told[-1][2] - told[0][2]) / (told[-1][0] - told[0][0])
    steps = told[-1][1] if told else None
    solves = {solve["prefix"]: {"count": solve["count"], "iterations": solve["iterations_total"] / solve["count"],
                                "seconds": solve["seconds_solve"],
                                "tiles": solve["operations"]["tiles_programmed"]} for solve in report["solves"]}
    return {
        "answers": {entry["name"]: entry["value"] for entry in report["problem"]["results"]},
        "parameters": {name: value for name, value in report["problem"]["parameters"].items()},
        "unknowns": report["unknowns"], "steps": steps, "seconds_per_step": step,
        "seconds_assemble": report["totals"]["seconds_assemble"], "solves": solves,
    }


def image(name: str) -> Path:
    """Return where the page's picture of a case is."""
    return IMAGES / f"weather_{name.replace('-', '_').lower()}.png"


def for_the_page(source: Path, target: Path) -> None:
    """Copy a picture with at most 800 pixels in a line and 128 colours: a fifth of the size."""
    from PIL import Image

    with Image.open(source) as picture:
        small = picture.convert("RGB")
        small.thumbnail((800, 2000))
        small.quantize(128).save(target, optimize=True)


def table(lines: list[list[str]]) -> str:
    """Return a table; the first line is its head."""
    head, *body = lines
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *body))


def physics(case: Case, runs: dict[str, dict[str, Any]]) -> str:
    """Return the table of a case."""
    lines = [["", "published or asked for", *SOLVERS]]
    for row in case.rows:
        cells = []
        for solver in SOLVERS:
            value = runs.get(solver, {}).get("answers", {}).get(row.answer)
            mark = "" if current(case, runs.get(solver, {})) else " \\*"
            cells.append("" if value is None else row.show(value) + mark)
        if any(cells):
            lines.append([row.label, row.published, *cells])
    again = [runs.get(solver, {}).get("answers", {}).get("tiles programmed after the first step") for solver in SOLVERS]
    if any(value is not None for value in again[1:]):
        lines.append(["tiles programmed after the first step", "0",
                      *["" if value is None or solver == "FP64" else f"{value:.0f}"
                        for solver, value in zip(SOLVERS, again, strict=True)]])
    walls = [runs.get(solver, {}) for solver in SOLVERS]
    if case.wall and any("wall" in entry for entry in walls):
        lines.append(["wall time, s (ranks)", case.wall,
                      *[f"{entry['wall']:,.0f} ({entry['ranks']})" if "wall" in entry else "" for entry in walls]])
    return table(lines)


def current(case: Case, entry: dict[str, Any]) -> bool:
    """Tell whether a result is one of the equations as they are."""
    return bool(entry.get("edition", 1) == EDITION[case.script])


def seconds_per_step(entry: dict[str, Any]) -> float | None:
    """Return the time of a step, unless too much else was running for it to mean anything."""
    return entry.get("seconds_per_step") if sum(entry.get("load", [])) / 2 <= BUSY else None


def work(data: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the table of times and iterations."""
    lines = [["case", "unknowns", "steps", "solver", "ranks", "s per step", "of FP64's", "assembly, of a step",
              "iterations per solve"]]
    for name, case in CASES.items():
        if not case.section:
            continue
        runs = data.get(name, {})
        for i, solver in enumerate(s for s in SOLVERS if "answers" in runs.get(s, {})):
            entry = runs[solver]
            beside = runs.get("FP64", {})
            step = seconds_per_step(entry)
            digital = seconds_per_step(beside) if beside.get("ranks") == entry.get("ranks") else None
            solved = sum(solve["seconds"] for solve in entry["solves"].values())
            share = entry["seconds_assemble"] / (entry["seconds_assemble"] + solved)
            lines.append([case.title if i == 0 else "", f"{entry['unknowns']:,}" if i == 0 else "",
                          f"{entry['steps']}" if i == 0 else "", solver, f"{entry['ranks']}",
                          f"{step:.3f}" if step else "",
                          f"{step / digital:.1f}" if step and digital and solver != "FP64" else "", f"{share:.0%}",
                          ", ".join(f"{prefix.rstrip('_')} {solve['iterations']:.1f}"
                                    for prefix, solve in entry["solves"].items())])
    return table(lines) if len(lines) > 1 else ""


def orders(data: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the orders of convergence of TC2."""
    lines = [["order of l2(h)", "asked for", *SOLVERS]]
    for coarse, fine in (("tc2-L2", "tc2-L3"), ("tc2-L3", "tc2-L4"), ("tc2-L2", "tc2-L4")):
        cells = []
        for solver in SOLVERS:
            errors = [data.get(name, {}).get(solver, {}).get("answers", {}).get("relative l2 error of the depth")
                      for name in (coarse, fine)]
            levels = int(fine[-1]) - int(coarse[-1])
            cells.append(f"{math.log2(errors[0] / errors[1]) / levels:.2f}" if all(errors) else "")
        if any(cells):
            lines.append([f"{coarse[4:]} → {fine[4:]}", "≥ 3" if levels == 2 else "", *cells])
    return table(lines) if len(lines) > 1 else ""


def closures(data: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return what closures do to the Rossby-Haurwitz wave."""
    names = {"none": "none (`-upwind 0`)", "anticipated": "anticipated potential vorticity (`-closure anticipated`)",
             "subscales": "of subscales (`-closure subscales`)",
             "bounded": "of subscales, with bounds on potential vorticity: the default"}
    lines = [["closure", *(f"{what}, level {level}" for level in (2, 3)
                           for what in ("rotation, °/day", "potential enstrophy"))]]
    for name, words in names.items():
        cells = []
        for level in (2, 3):
            found = data.get(f"tc6-L{level}-{name}", {}).get("FP64", {}).get("answers", {})
            for row in CASES[f"tc6-L{level}-{name}"].rows:
                cells.append(row.show(found[row.answer]) if row.answer in found else "")
        if any(cells):
            lines.append([words, *cells])
    return table(lines) if len(lines) > 1 else ""


SPEEDS = (("tc6-L2-bounded", "level 2"), ("tc6-L3", "level 3"), ("tc6-L3-half", "level 3, half the time step"),
          ("tc6-L4", "level 4"), ("tc6-L4-half", "level 4, half the time step"))


def converged_speed(data: dict[str, dict[str, dict[str, Any]]]) -> float | None:
    """Return where the speeds of TC6's wave on levels 2, 3 and 4 go, by Aitken's extrapolation; None without them."""
    found = [data.get(name, {}).get("FP64", {}).get("answers", {}).get("rotation of the wave")
             for name in ("tc6-L2-bounded", "tc6-L3", "tc6-L4")]
    if None in found:
        return None
    coarse, middle, fine = found
    return fine - (fine - middle) ** 2 / ((fine - middle) - (middle - coarse))


def with_speeds(data: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a copy of the data in which the answers of TC6 have the speed over the converged one."""
    data, limit = copy.deepcopy(data), converged_speed(data)
    for runs in data.values():
        for entry in runs.values():
            if limit and "rotation of the wave" in entry.get("answers", {}):
                entry["answers"][OVER_CONVERGED] = entry["answers"]["rotation of the wave"] / limit - 1
    return data


def speeds(data: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return how fast TC6's wave turns by level and time step, FP64 solves."""
    lines = [["TC6, 7 days", "rotation of the wave, °/day", "over the converged", "amplitude of wave 4, of the first"]]
    for name, words in SPEEDS:
        found = data.get(name, {}).get("FP64", {}).get("answers", {})
        if OVER_CONVERGED in found:
            lines.append([words, f"{found['rotation of the wave']:.4f}", f"{found[OVER_CONVERGED]:+.3%}",
                          f"{found['amplitude of the wave over that at the start']:.3f}"])
    limit = converged_speed(data)
    if limit is None:
        return ""
    lines += [["converged: levels 2, 3, 4 extrapolated", f"{limit:.4f}", "", ""],
              ["nondivergent (Haurwitz)", f"{HAURWITZ:.4f}", f"{HAURWITZ / limit - 1:+.1%}", "1"]]
    return table(lines)


INTRODUCTION = """# Weather on programmed tiles

The field's own test cases, with every elliptic solve on tiles, beside the same run with digital solves and what is
published. Each matrix is constant in time and programmed once. Made by `scripts/study_weather.py`; a case is what its
command says, and can be run alone:

    {example}

*FP64* is PETSc's `-ksp_type cg -pc_type gamg -ksp_rtol 1e-8`; *rram128* and *pku2025* are the emulated
[chips](chips.md), solved to the accuracy of FP32 ([method](method.md)). *Asked for* are this project's own targets.
"""

DENSITY = """## Density current and warm bubble

Straka et al., *Numerical solutions of a non-linear density current: a benchmark solution and comparisons*,
International Journal for Numerical Methods in Fluids 17 (1993) 1–22: cold air falls and spreads along the ground.
Their reference is a compressible model at 25 m. The published values here are those of their tables IV and V as the
benchmark targets of another public model quote them, not read from the paper itself (confidence: good for front and
θ′, medium for the winds). These equations have no sound: [`density_current.py`](problems.md#density_currentpy) says
what they are.
"""

BUBBLE_TEXT = """Robert, *Bubble convection experiments with a semi-implicit formulation of the Euler equations*,
Journal of the Atmospheric Sciences 50 (1993) 1865–1873, shows pictures and no numbers: after 18 minutes a cap above an
arch whose ends have rolled up. His model has no explicit viscosity; here it is 0.25 m²/s. The centre at 260 m and the
flanks are his; air of 300 K is as in later papers (from memory: confidence medium).
"""

SPHERE = """## Shallow water on the sphere

Williamson et al., Journal of Computational Physics 102 (1992) 211–224: TC2 is steady, so its error is known; TC5 is
flow over a mountain; TC6 a Rossby–Haurwitz wave. Galewsky, Scott and Polvani, Tellus 56A (2004) 429–440: an unstable
jet. Figures of other models stand where a source of theirs could be read; for TC2 there was none.
[Shallow water](shallow_water.md) says how it is computed.
"""

SPEED = """### Speed of the Rossby–Haurwitz wave

By FP64 solves, from a line through the longitudes of the crests of wave 4 at all steps. The exact wave of the
nondivergent equation turns by (R (3 + R) ω − 2 Ω)/((1 + R) (2 + R)); with a free surface it is slower, and not steady.
The reference is therefore this model's own: where the speeds of levels 2, 3 and 4 go.
"""

CLOSURES = """### Closures

TC6 after 7 days, by FP64 solves: how fast the wave turns and the change of potential enstrophy, by what upwinding takes
out of the vorticity ([shallow water](shallow_water.md#the-equations-and-their-elements)).
"""

WORK = """## Time and iterations

Wall time per step from a quarter of the run on (before it kernels are compiled and tiles programmed), on the machine
that made the page, which had other work to do (load averages are in `docs/weather.json`; above 6 the times are left
out): ratios are better than times. An emulated tile costs the host more than the sparse products that it stands for;
what a chip would take is in the [reports](reports.md). *Assembly* counts right-hand sides, of assembly and solves
together, with the compilation of forms.
"""


def page(data: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the page."""
    example = f"mpirun -n 2 python {command(CASES['straka-100'], 'rram128')}"
    parts, data = [INTRODUCTION.format(example=example)], with_speeds(data)
    groups = {"density_current": DENSITY, "shallow_water": SPHERE}
    for script, text in groups.items():
        names = [name for name in data if name in CASES and CASES[name].script == script and CASES[name].section]
        if not names:
            continue
        parts.append(text)
        told = False
        for name in sorted(names, key=list(CASES).index):
            case, runs = CASES[name], data[name]
            if name.startswith("bubble") and not told:
                parts.append(BUBBLE_TEXT)
                told = True
            parts += [f"### {case.title}\n", f"`problems/{case.script}.py {case.options}`\n",
                      physics(case, runs) + "\n"]
            if not all(current(case, entry) for entry in runs.values()):
                parts.append(OLD)
            parts += [f"{solver}: {entry['error']}\n" for solver, entry in runs.items() if "error" in entry]
            if case.note:
                parts.append(case.note + "\n")
            if image(name).exists():
                parts.append(f"![{case.title}](images/{image(name).name})\n")
        if script == "shallow_water" and orders(data):
            parts += ["### Order of convergence\n", orders(data) + "\n"]
        if script == "shallow_water" and speeds(data):
            parts += [SPEED, speeds(data) + "\n"]
        if script == "shallow_water" and closures(data):
            parts += [CLOSURES, closures(data) + "\n"]
    parts += [WORK, work(data)]
    return "\n".join(parts).rstrip() + "\n"


def wanted(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the cases to run, all solvers of one after the other."""
    names = arguments.only or [name for name, case in CASES.items()
                               if not case.by_hand and (arguments.full or not case.full)]
    for name in names:
        for solver in arguments.solvers:
            if solver in CASES[name].solvers:
                yield name, solver


def words(allowed: dict[str, Any]) -> Callable[[str], list[str]]:
    """Return the parser of a list of names."""
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r}; allowed: {', '.join(allowed)}")
        return names
    return parse


def main() -> int:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every case: hours")
    parser.add_argument("--ranks", type=int, default=1, choices=range(1, 129), metavar="1…128",
                        help="MPI ranks of every run")
    parser.add_argument("--only", type=words(CASES), help="names of cases, with commas")
    parser.add_argument("--solvers", type=words(SOLVERS), default=list(SOLVERS), help="columns, with commas")
    parser.add_argument("--again", action="store_true", help="also what has a result already")
    parser.add_argument("--page", action="store_true", help="write the page only")
    arguments = parser.parse_args()
    data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    for name, solver in [] if arguments.page else wanted(arguments):
        if not (ROOT / "problems" / f"{CASES[name].script}.py").exists():
            print(f"{name}: problems/{CASES[name].script}.py is missing", flush=True)
            continue
        known = data.get(name, {}).get(solver, {})
        if "answers" in known and current(CASES[name], known) and not arguments.again:
            continue
        print(f"{name}, {solver}: ", end="", flush=True)
        result = run(name, solver, arguments.ranks)
        print(result.get("error") or f"{result['wall']:.0f} s", flush=True)
        # Another run of this script may have added cases meanwhile.
        data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
        data.setdefault(name, {})[solver] = result
        write(DATA, json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        write(PAGE, page(data))
    if data:
        write(PAGE, page(data))
    return int(any("error" in entry for runs in data.values() for entry in runs.values()))


def write(path: Path, text: str) -> None:
    """Replace a file in one go."""
    beside = path.with_name(path.name + ".partial")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


if __name__ == "__main__":
    sys.exit(main())

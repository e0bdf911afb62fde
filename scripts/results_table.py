"""Make the table of results: every problem, size, degree, chip and rank count against FP64 and native FP32.

    .venv/bin/python scripts/results_table.py [--sizes small|all] [--ranks 1,2,4] [--minutes M] [--chips …]

Each case is a problem script under mpirun with -verify, read from its report; several small ones share a process.
Cases with a result are kept in docs/results.json and not run again (--again does); docs/results.md is written from it
after each case, misses included, so that an interrupted run loses nothing.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import importlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the tree that this script is in, installed or not

from analogpde.refine.target import BACKWARD_ERROR, FORWARD_ERROR  # noqa: E402

DATA, PAGE, README = ROOT / "docs" / "results.json", ROOT / "docs" / "results.md", ROOT / "README.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
CHIPS = ("ideal", "pku2025", "rram128", "sram64")
ITERATIONS = 60  # at most, beside the limits of analogpde.refine.target

# problem -> (options that keep a case short, dimension -> sizes); the sphere's n is cells per icosahedron edge
PROBLEMS: dict[str, tuple[list[str], dict[int, tuple[int, ...]]]] = {
    "poisson": ([], {2: (16, 32, 64, 128, 256), 3: (8, 16, 24, 32, 40)}),
    "heat": (["-case", "box", "-t_end", "0.03", "-dt", "0.01"], {2: (16, 32, 64, 128, 256), 3: (8, 16, 24, 32, 40)}),
    "vorticity": (["-days", "0.05"], {2: (16, 32, 64, 128, 256)}),
}
DEGREES = {"poisson": (1, 2), "heat": (1, 2), "vorticity": (1, 2)}
SMALL = {2: 64, 3: 16}


def unknowns(problem: str, dim: int, degree: int, n: int) -> int:
    """Return the number of unknowns of a case."""
    return 10 * (n * degree) ** 2 + 2 if problem == "vorticity" else (n * degree + 1) ** dim


def cases(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield the wanted cases, small ones first."""
    found = []
    for problem in arguments.problems:
        for dim, sizes in PROBLEMS[problem][1].items():
            for n, degree, chip, ranks in itertools.product(sizes, DEGREES[problem], arguments.chips, arguments.ranks):
                if arguments.sizes == "all" or n <= SMALL[dim]:
                    found.append({"problem": problem, "dim": dim, "degree": degree, "n": n, "chip": chip,
                                  "ranks": ranks, "unknowns": unknowns(problem, dim, degree, n)})
    # at each size all ranks and chips of one problem follow each other, so that no column lags behind
    yield from sorted(found, key=lambda c: (c["unknowns"] * (4 if c["dim"] == 3 else 1), c["problem"], c["ranks"]))


def key(case: dict[str, object]) -> str:
    """Return the name of a case in the data file."""
    return "/".join(str(case[part]) for part in ("problem", "dim", "degree", "n", "chip", "ranks"))


def words(case: dict[str, object], folder: str) -> list[str]:
    """Return the options of a case, as typed behind the problem's script."""
    options = list(PROBLEMS[str(case["problem"])][0])
    if case["problem"] == "vorticity" and int(str(case["n"])) > SMALL[2]:
        options = ["-days", "0.002"]  # one time step is six solves: on large spheres enough
    elif case["problem"] == "heat" and int(str(case["unknowns"])) > 200_000:
        options[options.index("-t_end") + 1] = "0.01"  # one step
    return [*options, "-dim", str(case["dim"]), "-degree", str(case["degree"]), "-n",
            str(case["n"]), "-analog_chip", str(case["chip"]), "-ksp_type", "analog", "-verify", "-picture", "false",
            "-snapshots", "0", "-out", folder]


def run(batch: list[dict[str, object]], timeout: float) -> list[dict[str, object]]:
    """Run cases of one problem and rank count in one mpirun; return what their reports say of each matrix."""
    beside = Path(sys.executable).with_name("mpirun")
    mpirun = str(beside) if beside.exists() else shutil.which("mpirun") or "mpirun"
    results = []
    with tempfile.TemporaryDirectory() as folder:
        orders = Path(folder) / "orders.json"
        orders.write_text(json.dumps([words(case, f"{folder}/{i}") for i, case in enumerate(batch)]), encoding="utf-8")
        command = [mpirun, "-n", str(batch[0]["ranks"]), sys.executable, __file__, "--worker", str(batch[0]["problem"]),
                   str(orders)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout,
                                  check=False, cwd=ROOT)
            said = (done.stderr or done.stdout).strip()[-400:] or f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            said = f"not finished in {timeout:.0f} s"
        for i, case in enumerate(batch):
            report = Path(folder) / str(i) / "report.json"
            if not report.exists():
                results.append({**case, "error": said})
                continue
            data = json.loads(report.read_text(encoding="utf-8"))
            solves = [{name: solve[name] for name in (
                "prefix", "count", "iterations", "converged_reason", "backward_error", "forward_error",
                "forward_error_fp32")} for solve in data["solves"]]
            results.append({**case, "unknowns": data["unknowns"], "solves": solves,
                            "date": datetime.date.today().isoformat(), "commit": commit()})
    return results


@functools.cache
def commit() -> str:
    """Return the commit that this tree is at, '' without git."""
    try:
        return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True,
                              check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def worker(problem: str, orders: str) -> int:
    """Run a problem's `main` once for every list of options in the file `orders`. Collective."""
    sys.path.insert(0, str(ROOT / "problems"))
    main = importlib.import_module(problem).main
    from analogpde.fem.verify import Verifier

    Verifier.keep = 2  # the chips of a batch solve the same matrices, two at most a problem
    for options in json.loads(Path(orders).read_text(encoding="utf-8")):
        main(options)
    return 0


def batches(wanted: list[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    """Yield the cases in batches: small ones of a problem and rank count, large ones of a size, huge ones alone."""
    waiting: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for case in wanted:
        size = int(str(case["unknowns"]))
        small = size < 20_000
        together = (case["problem"], case["ranks"]) if small else (*key(case).split("/")[:4], case["ranks"])
        if size > 1_000_000:  # what one chip leaves behind takes the memory that the next one needs
            together = (key(case),)
        waiting.setdefault((small, *together), []).append(case)
    yield from waiting.values()


def misses(result: dict[str, object]) -> list[str]:
    """Return in words where a result misses the target."""
    if "error" in result:
        return [str(result["error"]).splitlines()[-1]]
    found = []
    for solve in result["solves"]:
        name = solve["prefix"] or "solve"
        forward, native = solve["forward_error"], solve["forward_error_fp32"]
        if not solve["converged_reason"].startswith("CONVERGED"):
            found.append(f"{name}: {solve['converged_reason']}")
        if solve["iterations"] > ITERATIONS:
            found.append(f"{name}: {solve['iterations']} iterations")
        if forward is None or forward > FORWARD_ERROR:
            found.append(f"{name}: forward error {forward}")
        if forward is not None and native is not None and forward > native:
            found.append(f"{name}: forward error {forward:.1e} above native FP32's {native:.1e}")
        if solve["backward_error"] is None or solve["backward_error"] > BACKWARD_ERROR:
            found.append(f"{name}: backward error {solve['backward_error']}")
    return found


def table(results: dict[str, dict[str, object]], chips: list[str], problem: str,
          only: tuple[int, ...] | None = None) -> list[str]:
    """Return the rows of one problem as a Markdown table; `only` these sizes n."""
    rows: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for result in results.values():
        if result["problem"] == problem and (only is None or result["n"] in only):
            rows.setdefault(tuple(result[k] for k in ("dim", "degree", "n", "unknowns")), []).append(result)
    if not rows:
        return []
    lines = ["| dim | degree | n | unknowns | ranks | FP32 | " + " | ".join(chips) + " |",
             "| --- " * (6 + len(chips)) + "|"]
    for row in sorted(rows):
        found = rows[row]
        natives = [s["forward_error_fp32"] for r in found for s in r.get("solves", ()) if s["forward_error_fp32"]]
        cells = []
        for chip in chips:
            mine = [r for r in found if r["chip"] == chip]
            if not mine:
                cells.append("")
            elif any("error" in r for r in mine):
                cells.append("**no result**")
            else:
                worst = max(s["iterations"] for r in mine for s in r["solves"])
                forward = max((s["forward_error"] for r in mine for s in r["solves"]
                               if s["forward_error"] is not None), default=float("nan"))
                text = f"{worst} \\| {forward / FORWARD_ERROR:.2f}"
                cells.append(f"**{text}**" if any(misses(r) for r in mine) else text)
        ranks = ", ".join(str(r) for r in sorted({int(r["ranks"]) for r in found}))
        native = f"{min(natives) / FORWARD_ERROR:.3g}" if natives else "—"
        head = [str(part) for part in row[:3]] + [f"{row[3]:,}", ranks, native]
        lines.append("| " + " | ".join(head + cells) + " |")
    return lines


def write(results: dict[str, dict[str, object]]) -> None:
    """Write the data, the page and the short table of the README."""
    DATA.write_text(json.dumps(results, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    chips = [chip for chip in CHIPS if any(r["chip"] == chip for r in results.values())]
    short: list[str] = []
    for problem in PROBLEMS:
        rows = table(results, chips, problem, only=(16, 64, 256, 40))
        if rows:
            header = [f"| problem {rows[0]}", f"| --- {rows[1]}"] if not short else []
            short += header + [f"| {problem} {row}" for row in rows[2:]]
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text("\n".join([before + BEGIN, *short, END]) + after, encoding="utf-8")


def page(results: dict[str, dict[str, object]]) -> str:
    """Return docs/results.md."""
    chips = [chip for chip in CHIPS if any(r["chip"] == chip for r in results.values())]
    bad = {name: misses(result) for name, result in results.items() if misses(result)}
    ages = collections.Counter(str(result.get("commit", "")) or "an earlier one" for result in results.values())
    lines = [
        "# Results", "",
        "Made by `scripts/results_table.py`; do not edit. Every case is run with `-ksp_type analog`, n cells per side "
        "(the sphere: along an edge of the icosahedron), no tolerance given "
        "(the target is [FP32-equivalent](accuracy.md)), and `-verify`. A cell shows the outer iterations and, behind "
        "the bar, the forward error in units of 2⁻²³, the worst over ranks, matrices and time steps. *FP32* is the "
        "forward error of a native float32 sparse LU of the same matrix in the same unit (— where it was not run: "
        "above its stated size).", "",
        f"{len(results)} cases on {platform.machine()}, {os.cpu_count()} cores; {len(results) - len(bad)} meet the "
        f"target (forward error ≤ 2⁻²³ and not above native FP32's, backward error ≤ 2⁻²⁴, at most {ITERATIONS} outer "
        f"iterations), {len(bad)} do not. Cases by the commit they were run at: "
        f"{', '.join(f'{name} ({count})' for name, count in ages.most_common())}.", ""]
    for problem in PROBLEMS:
        chosen = table(results, chips, problem)
        lines += [f"## {problem}", "", *chosen, ""] if chosen else []
    if bad:
        lines += ["## Misses", ""] + [f"- `{name}`: {'; '.join(texts)}" for name, texts in sorted(bad.items())] + [""]
    return "\n".join(lines)


def main() -> int:
    """Run what is missing, within the time allowed; write data and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=("small", "all"), default="all", help="all sizes, or up to 64² and 16³")
    parser.add_argument("--ranks", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--chips", type=lambda text: text.split(","), default=list(CHIPS))
    parser.add_argument("--problems", type=lambda text: text.split(","), default=list(PROBLEMS))
    parser.add_argument("--minutes", type=float, default=1e9, help="start no further case after so many minutes")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds per case")
    parser.add_argument("--again", action="store_true", help="run cases again that are in docs/results.json")
    parser.add_argument("--page-only", action="store_true", help="write the page from the data, run nothing")
    parser.add_argument("--worker", nargs=2, metavar=("PROBLEM", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(*arguments.worker)
    results: dict[str, dict[str, object]] = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    start = time.monotonic()
    wanted = [] if arguments.page_only else list(cases(arguments))
    todo = [case for case in wanted if arguments.again or "error" in results.get(key(case), {"error": "not run"})]
    for batch in batches(todo):
        if time.monotonic() - start > 60 * arguments.minutes:
            print(f"results: time is up; {sum(key(case) not in results for case in wanted)} cases are left, run again")
            break
        begin = time.monotonic()
        for result in run(batch, arguments.timeout * len(batch)):
            results[key(result)] = result
            print(f"{key(result)}: {'; '.join(misses(result)) or 'ok'}", flush=True)
        print(f"  {len(batch)} cases in {time.monotonic() - begin:.0f} s", flush=True)
        write(results)
    write(results)
    failed = sum(1 for result in results.values() if misses(result))
    print(f"results: {len(results)} cases, {failed} miss the target; written to docs/results.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The page of scripts/bench_scaling.py: its tables, figure and misses, from the results of its cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench_cases import CASES, PROBLEMS, TOPICS, Result

COLUMNS = ("case | unknowns | chip | ranks | target | iterations to 1e-8 | to FP32 | levels | tiles | operator "
           "complexity | set-up s | solve s | memory GB | CG/GMRES + GAMG: iterations | set-up s | solve s | "
           "time ratio | result")
SHOTS = "case | unknowns | chip | ranks | target | arrays | GEMV ms | shot ms | rate | result"


def misses(result: Result) -> list[str]:
    """Return in words where a result misses its target."""
    if "error" in result:
        return [str(result["error"]).strip().splitlines()[-1]]
    if result["topic"] == "shoot":
        slow = result["fraction"] < result["target"]
        return [f"{result['fraction']:.0%} of the GEMV's rate"] if slow else []
    found, count = [], result["iterations"]
    if count is None:
        found.append(f"{result['residual']:.1e} and no less: {result['reason']}")
    elif count > result["target"]:
        found.append(f"{count} iterations, target {result['target']:g}")
    if not result["reason_fp32"].startswith("CONVERGED"):
        found.append(f"FP32 target: {result['reason_fp32']}")
    return found


def ratio(result: Result) -> float:
    """Return the time of set-up and solve in units of the digital solver's, NaN if that failed."""
    digital = result["gamg"]
    if digital["reason"] <= 0:
        return float("nan")
    return float((result["setup"] + result["solve"]) / (digital["setup"] + digital["solve"]))


def verdict(result: Result) -> str:
    """Return the last cell of a row."""
    return f"**miss**: {'; '.join(misses(result))}" if misses(result) else "met"


def table(topic: str, results: dict[str, Result]) -> list[str]:
    """Return the rows of one topic as a Markdown table."""
    columns = (SHOTS if topic == "shoot" else COLUMNS).split(" | ")
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for case in CASES:
        r = results.get(case.key)
        if case.topic != topic or r is None:
            continue
        name = PROBLEMS[case.problem][0] + (", plain" if case.accelerator == "none" else "")
        cells: list[Any] = [name, f"{r.get('size', case.unknowns):,}", case.chips, case.ranks]
        cells.append(f"≥ {case.target:.0%}" if topic == "shoot" else f"≤ {case.target:g}")
        if "error" in r:
            cells += [""] * (len(columns) - len(cells) - 1)
        elif topic == "shoot":
            cells += [f"{r['arrays']} × {r['lines']}²", f"{1e3 * r['gemv']:.2f}", f"{1e3 * r['shoot']:.2f}",
                      f"{r['fraction']:.0%}"]
        else:
            g = r["gamg"]
            cells += ["—" if r["iterations"] is None else r["iterations"], r["iterations_fp32"],
                      f"{r['levels']}{' †' if r['digital'] else ''}", r["tiles"], r["complexity"], f"{r['setup']:.3g}",
                      f"{r['solve']:.3g}", f"{r['memory']:.2f}",
                      g["iterations"] if g["reason"] > 0 else f"{g['iterations']}, failed ({g['reason']})",
                      f"{g['setup']:.3g}", f"{g['solve']:.3g}", "—" if g["reason"] <= 0 else f"{ratio(r):.2f}"]
        lines.append("| " + " | ".join(str(cell) for cell in [*cells, verdict(r)]) + " |")
    return lines if len(lines) > 2 else []


def checks(results: dict[str, Result]) -> Iterator[tuple[str, str, list[float], bool]]:
    """Yield what several cases say together: words, target, the values measured (none: not run), whether it is met."""
    small, large, largest = 100_000, 1_000_000, 4_000_000

    def of(*wanted: tuple[int, int], chips: str = "rram128") -> list[Result]:
        """Return the cases of these sizes and rank counts, none if one of them has not reached 1e-8."""
        row = [results.get(f"poisson2/{n}/{chips}/auto/{ranks}", {}) for n, ranks in wanted]
        return row if all(r.get("iterations") is not None for r in row) else []

    def check(words: str, target: str, values: list[float], met: Callable[[list[float]], bool]) -> Any:
        return words, target, values, bool(values) and met(values)

    for chips in ("rram128", "pku2025-64"):
        yield check(f"iterations at 1e5 and 4e6, {chips}", "growth ≤ 1", [
            r["iterations"] for r in of((small, 1), (largest, 1), chips=chips)], lambda v: v[1] - v[0] <= 1)
    for ranks in (1, 2):
        one = of((large, ranks))
        where = f"1e6, {ranks} rank{'s'[: ranks - 1]}"
        yield check(f"time over that of CG + GAMG, {where}", "≤ 2.5", [ratio(r) for r in one], lambda v: v[0] <= 2.5)
        yield check(f"peak memory in GB, {where}", "≤ 2.5", [r["memory"] for r in one], lambda v: v[0] <= 2.5)
    row = of((small, 1), (large, 1), (largest, 1))
    for words, times in (("set-up", [1e6 * r["setup"] / r["size"] for r in row]),
                         ("solve per iteration", [1e6 * r["solve"] / r["size"] / r["iterations"] for r in row])):
        yield check(f"{words}, µs per unknown at 1e5, 1e6, 4e6", "within 15 % of 1e5", times,
                    lambda v: max(abs(t / v[0] - 1) for t in v) <= 0.15)
    seconds = [r["setup"] + r["solve"] for r in of((large, 1), (large, 2))]
    yield check("speed-up of set-up and solve from 1 to 2 ranks, 1e6", "≥ 1.6",
                seconds and [seconds[0] / seconds[1]], lambda v: v[0] >= 1.6)
    yield check("iterations on 1, 2, 4, 8 ranks, 1e5", "within 2 of 1 rank", [
        r["iterations"] for r in of(*((small, ranks) for ranks in (1, 2, 4, 8)))],
        lambda v: max(abs(count - v[0]) for count in v) <= 2)


def page(results: dict[str, Result], figure: bool) -> str:
    """Return docs/scaling.md."""
    bad = {key: misses(result) for key, result in sorted(results.items()) if misses(result)}
    over = list(checks(results))

    def all_of(name: str) -> str:
        return ", ".join(sorted({str(result[name]) for result in results.values()})) or "—"

    lines = [
        "# Scaling", "",
        "Made by `scripts/bench_scaling.py`; do not edit. Outer iterations of `-ksp_type analog` to a true relative "
        "residual of 1e-8 and, with the same set-up, to the [FP32-equivalent](accuracy.md) default target; right-hand "
        "side standard normal, initial guess zero. Lognormal coefficients have a correlation length of 5 % of the side "
        "where nothing else is said. Beside it FP64 CG (GMRES where the matrix is not symmetric) with "
        "PETSc's GAMG, default options (with GMRES plain aggregation and SOR), to the same true residual. *Time "
        "ratio*: set-up and solve over GAMG's. "
        "*Memory*: peak of all ranks until the analog solves end. † : partly digital (the coarsest level by LU). "
        "Before each of the two the operating system is made to find the memory (a virtual machine gets it at 1 GB/s "
        "the first time): neither pays for the other.", "",
        f"Machine: {all_of('machine')}. Dates: {all_of('date')}. Commits: {all_of('commit')}. Load "
        f"of the machine when cases began: up to {max((r['load'] for r in results.values()), default=0):.1f}.", "",
        f"{len(results)} cases; {len(results) - len(bad)} meet their target, {len(bad)} do not. Of {len(over)} targets "
        f"for several cases together {sum(met for *_, met in over)} are met.", ""]
    lines += ["![Iterations and time per unknown](images/scaling.png)", ""] if figure else []
    for topic, title in TOPICS.items():
        rows = table(topic, results)
        lines += [f"## {title}", "", *rows, ""] if rows else []
    lines += ["## Several cases together", "", "| Poisson, 2-D, rram128 | target | measured | result |",
              "| --- | --- | --- | --- |"]
    for words, target, values, met in over:
        said = "met" if met else "**miss**" if values else "not measured"
        lines.append(f"| {words} | {target} | {', '.join(f'{value:.3g}' for value in values)} | {said} |")
    wrong = [f"- `{key}`: {'; '.join(texts)}" for key, texts in bad.items()]
    wrong += [f"- {words}: {', '.join(f'{v:.3g}' for v in values)}, target {target}"
              for words, target, values, met in over if values and not met]
    return "\n".join([*lines, "", "## Misses", "", *(wrong or ["None."]), ""])


def draw(results: dict[str, Result], path: Path) -> bool:
    """Draw iterations and time per unknown against unknowns; return whether there is Matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for dim, colour in ((2, "tab:blue"), (3, "tab:red")):
        keys = [case.key for case in CASES if case.topic == f"poisson{dim}" and case.chip == "rram128"
                and case.tile in (0, 128)]
        found = [results[key] for key in keys if results.get(key, {}).get("iterations")]
        sizes = [r["size"] for r in found]
        for name, parts, style in (("analog, rram128", found, "o-"), ("CG + GAMG", [r["gamg"] for r in found], "s--")):
            axes[0].plot(sizes, [p["iterations"] for p in parts], style, color=colour, label=f"{dim}-D, {name}")
            axes[1].plot(sizes, [1e6 * (p["setup"] + p["solve"]) / n for p, n in zip(parts, sizes, strict=True)],
                         style, color=colour)
    for axis, words in zip(axes, ("iterations to 1e-8", "set-up and solve, µs per unknown"), strict=True):
        axis.set(xscale="log", xlabel="unknowns", ylabel=words)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def write(results: dict[str, Result], folder: Path) -> None:
    """Write data, page and figure."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling.json").write_text(json.dumps(results, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    figure = draw(results, folder / "images" / "scaling.png")
    (folder / "scaling.md").write_text(page(results, figure), encoding="utf-8")

"""Make the table of scaling targets: outer iterations, time and memory of the tile multigrid, beside FP64 CG + GAMG.

    .venv/bin/python scripts/bench_scaling.py [--only REGEX] [--largest UNKNOWNS] [--ranks 1,2] [--minutes M]

Each case is one mpirun: set-up, a solve to a true relative residual of 1e-8 and one to the default target of
KSP analog, then PETSc's own multigrid on the same system. Finished cases are kept in docs/scaling.json and not run
again (--again does); docs/scaling.md and its figure are written from it after each case, misses included. Times mean
something on an idle machine only: the load when a case began is kept with it.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]  # the tree that this script is in, installed or not

from bench_cases import PROBLEMS, System  # noqa: E402

RTOL, LIMIT, WARM = 1e-8, 300, 3_000  # target, most iterations, unknowns of the throw-away solve
TOPICS = {
    "poisson2": "Poisson, 2-D",
    "poisson3": "Poisson, 3-D",
    "coefficient": "Discontinuous and lognormal coefficients",
    "mesh": "Anisotropy and unstructured meshes",
    "element": "Higher degree, elasticity",
    "wind": "Convection and diffusion",
    "reaction": "Heat and Helmholtz",
    "plain": "Plain refinement, no accelerator",
    "ranks": "Ranks",
    "shoot": "All tiles once, against batched float32 GEMV",
}
COLUMNS = ("case | unknowns | chip | ranks | target | iterations to 1e-8 | to FP32 | levels | tiles | operator "
           "complexity | set-up s | solve s | memory GB | CG/GMRES + GAMG: iterations | set-up s | solve s | "
           "time ratio | result")
SHOTS = "case | unknowns | chip | ranks | target | arrays | GEMV ms | shot ms | rate | result"
# GAMG's defaults need a symmetric matrix: with them GMRES does not converge from a mesh Péclet number of 1 on
UNSYMMETRIC = {"pc_gamg_agg_nsmooths": 0, "mg_levels_ksp_type": "richardson", "mg_levels_pc_type": "sor"}
Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """One case.

    Args:
        topic: its table on the page.
        problem: of bench_cases.PROBLEMS.
        unknowns: about how many.
        target: most outer iterations to 1e-8; in the topic `shoot` the smallest fraction of the GEMV's rate.
        chip, tile: preset and its tile size; 0: the preset's.
        accelerator: of KSP analog.
        ranks: MPI processes.
    """

    topic: str
    problem: str
    unknowns: int
    target: float
    chip: str = "rram128"
    tile: int = 0
    accelerator: str = "auto"
    ranks: int = 1

    @property
    def key(self) -> str:
        """Its name in the data file."""
        name = "shoot/" if self.topic == "shoot" else ""
        return f"{name}{self.problem}/{self.unknowns}/{self.chips}/{self.accelerator}/{self.ranks}"

    @property
    def chips(self) -> str:
        """Chip and tile size in a word."""
        return self.chip + (f"-{self.tile}" if self.tile else "")


SMALL = (10_000, 100_000)
MILLION, MOST = (*SMALL, 1_000_000), (*SMALL, 1_000_000, 4_000_000)
PKU64: Result = {"chip": "pku2025", "tile": 64}
# topic, problems, sizes (each kind begins at 1e4 unknowns), target, what else a case says
GROUPS: list[tuple[str, str, tuple[int, ...], float, Result]] = [
    ("poisson2", "poisson2", MOST, 13, {}),
    ("poisson2", "poisson2", MOST, 14, PKU64),
    *(("poisson2", "poisson2", MILLION, 20, {"chip": "pku2025", "tile": tile}) for tile in (16, 128)),
    *(("poisson3", "poisson3", MILLION, 13, {"tile": tile}) for tile in (128, 256, 512)),
    ("poisson3", "poisson3", MILLION, 14, {"chip": "pku2025"}),
    ("coefficient", "lognormal1", MILLION, 18, {}),
    ("coefficient", "lognormal2", MILLION, 25, {}),
    ("coefficient", "lognormal3", MILLION, 40, {}),
    ("coefficient", "checkerboard", MILLION, 30, {}),
    ("mesh", "aligned rotated delaunay heat_sink", SMALL, 25, {}),
    ("element", "p2 p3", SMALL, 25, {}),
    ("element", "p2in3", (10_000, 50_000), 25, {}),
    ("element", "elasticity", (10_000, 30_000), 40, {}),
    ("wind", "wind0.1 wind1 wind10 supg10", SMALL, 30, {}),
    ("reaction", "heat helmholtz", SMALL, 10, {}),
    ("plain", "poisson2 poisson3", SMALL, 20, {"accelerator": "none"}),
    ("plain", "poisson2 poisson3", SMALL, 30, {"accelerator": "none", **PKU64}),
    ("ranks", "poisson2", MILLION, 13, {"ranks": 2}),
    *(("ranks", "poisson2", SMALL, 13, {"ranks": ranks}) for ranks in (4, 8)),
    *(("shoot", "poisson2", SMALL, 0.6, {"chip": chip}) for chip in ("ideal", "rram128")),
]
CASES = [Case(topic, problem, n, target, **more) for topic, problems, sizes, target, more in GROUPS
         for problem in problems.split() for n in sizes]


# ---- one case, on all ranks ----------------------------------------------------------------------------------


def timed(comm: Any, act: Callable[[], Any]) -> float:
    """Return the wall time in s of what all ranks do together. Collective."""
    comm.Barrier()
    start = time.perf_counter()
    act()
    return float(comm.allreduce(time.perf_counter() - start, max))


def memory(comm: Any) -> float:
    """Return the peak memory so far in GB, summed over ranks. Collective."""
    return float(comm.allreduce(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9))


def assemble(system: System) -> tuple[Any, Any, Any]:
    """Return the matrix on all ranks, a random right-hand side that is the same on any number, and x. Collective."""
    from analogpde.petsc.stack import MPI, PETSc

    comm, nodes = MPI.COMM_WORLD, system.size // system.block
    begin, end = (nodes * rank // comm.size for rank in (comm.rank, comm.rank + 1))
    rows = system.rows(begin * system.block, end * system.block)
    csr = (rows.indptr.astype(PETSc.IntType), rows.indices.astype(PETSc.IntType), rows.data)
    matrix = PETSc.Mat().createAIJ(((rows.shape[0], system.size),) * 2, bsize=system.block, csr=csr, comm=comm)
    matrix.assemble()
    if system.nodes is not None:
        places = PETSc.Vec().createMPI(((end - begin) * 3, nodes * 3), bsize=3, comm=comm)
        places.array[:] = system.nodes[begin:end].ravel()
        matrix.setNearNullSpace(PETSc.NullSpace().createRigidBody(places))
    x, b = matrix.createVecs()
    b.array[:] = np.random.default_rng(0).standard_normal(system.size)[begin * system.block : end * system.block]
    return matrix, b, x


def analog(matrix: Any, b: Any, x: Any) -> tuple[Result, Any]:
    """Solve by KSP analog, twice; return what was measured, and the solver. Collective."""
    from analogpde.petsc import session
    from analogpde.petsc.stack import PETSc
    from analogpde.refine.target import FP32_RTOL

    comm = matrix.getComm().tompi4py()
    found: Result = {"memory_before": memory(comm)}
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(matrix)
    ksp.setType("analog")
    ksp.setFromOptions()
    found["setup"] = timed(comm, ksp.setUp)
    for name, rtol in (("", RTOL), ("_fp32", FP32_RTOL)):
        ksp.setTolerances(rtol=rtol, max_it=LIMIT)
        x.set(0.0)
        session().solves.clear()
        found["solve" + name] = timed(comm, lambda: ksp.solve(b, x))
        record = session().solves[""].worst
        steps = [step.iteration for step in record.history if step.relative_residual <= rtol]
        found["iterations" + name] = record.iterations if name else steps[0] if steps else None
        found["reason" + name], found["residual" + name] = record.converged_reason, record.relative_residual
    found["memory"] = memory(comm)
    text = record.description
    tiles = [int(n) for n in re.findall(r"(\d+) tiles,", text)] + [1] * text.count(", one tile")
    complexity = re.search(r"operator complexity ([\d.]+)", text)
    return {**found, "levels": len(re.findall(r"(?m)^level ", text)), "tiles": sum(tiles), "description": text,
            "complexity": float(complexity[1]) if complexity else None, "digital": record.digital_parts}, ksp


def gamg(matrix: Any, b: Any, x: Any, symmetric: bool) -> Result:
    """Solve by FP64 CG (GMRES) with PETSc's algebraic multigrid to the same true residual. Collective."""
    from analogpde.petsc.stack import PETSc

    comm = matrix.getComm().tompi4py()
    if symmetric:
        matrix.setOption(PETSc.Mat.Option.SPD, True)  # spares GAMG what it would do to find out
    ksp = PETSc.KSP().create(comm)
    ksp.setOptionsPrefix("digital_")
    ksp.setOperators(matrix)
    ksp.setType("cg" if symmetric else "gmres")
    if not symmetric:
        ksp.setPCSide(PETSc.PC.Side.RIGHT)
        for name, value in UNSYMMETRIC.items():
            PETSc.Options("digital_").setValue(name, value)
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.getPC().setType("gamg")
    ksp.setTolerances(rtol=RTOL, max_it=10 * LIMIT)
    ksp.setFromOptions()
    setup = timed(comm, lambda: (ksp.setUp(), ksp.setUpOnBlocks()))
    x.set(0.0)
    solve = timed(comm, lambda: ksp.solve(b, x))
    residual = b.duplicate()
    matrix.mult(x, residual)
    residual.aypx(-1.0, b)
    return {"iterations": ksp.getIterationNumber(), "setup": setup, "solve": solve,
            "reason": ksp.getConvergedReason(), "residual": residual.norm() / b.norm()}


def shots(context: Any, repeats: int = 20) -> Result:
    """Time one shot of all tiles of the finest level beside a float32 GEMV of as many full arrays."""
    level = context._levels[0]
    count, size = level.bank.count, context.settings.chip.tile_size
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((count, size, size)).astype(np.float32)
    vectors = rng.standard_normal((count, size, 1)).astype(np.float32)
    out, inputs = np.empty_like(vectors), rng.standard_normal((count, level.patches.index.shape[1]))
    seconds: dict[str, list[float]] = {"gemv": [], "shoot": []}
    for event in range(repeats):  # in turn, so that others on the machine slow down both alike
        x = inputs.copy()
        start = time.perf_counter()
        np.matmul(arrays, vectors, out=out)
        middle = time.perf_counter()
        level.bank.shoot(x, event)
        seconds["gemv"].append(middle - start)
        seconds["shoot"].append(time.perf_counter() - middle)
    best = {name: min(values) for name, values in seconds.items()}
    return {**best, "arrays": count, "lines": size, "fraction": best["gemv"] / best["shoot"]}


def measure(case: Case) -> Result:
    """Run a case: a small system to load and compile everything, then the real one. Collective."""
    import analogpde.petsc  # noqa: F401
    from analogpde.petsc.stack import MPI, PETSc

    options = PETSc.Options()
    options.setValue("analog_chip", case.chip)
    options.setValue("ksp_analog_accelerator", case.accelerator)
    if case.tile:
        options.setValue("analog_tile_size", case.tile)
    for unknowns in (min(WARM, case.unknowns), case.unknowns):
        system = PROBLEMS[case.problem][1](unknowns)
        matrix, b, x = assemble(system)
        found, ksp = analog(matrix, b, x)
        if case.topic == "shoot":
            found |= shots(ksp.getPC().getPythonContext())
        ksp.destroy()
        if case.topic != "shoot":
            found["gamg"] = gamg(matrix, b, x, system.symmetric)
        for thing in (matrix, b, x):
            thing.destroy()
        PETSc.garbage_cleanup()
    return {"size": system.size, **found, "ranks": MPI.COMM_WORLD.size}


def worker(order: str) -> int:
    """Run the case in the file `order` and write beside it what was measured, or what went wrong. Collective."""
    from analogpde.errors import cause
    from analogpde.petsc.stack import MPI

    comm, said = MPI.COMM_WORLD, Path(order).with_suffix(".result")
    try:
        found = measure(Case(**json.loads(Path(order).read_text(encoding="utf-8"))))
    except Exception as error:
        reason = cause(error) or error
        said.write_text(json.dumps({"error": f"{type(reason).__name__}: {reason}"}), encoding="utf-8")
        comm.Abort(1)  # the other ranks may be waiting
    if comm.rank == 0:
        said.write_text(json.dumps(found), encoding="utf-8")
    return 0


def run(case: Case, timeout: float) -> Result:
    """Run a case under mpirun; return what it measured, or its failure under `error`."""
    beside = Path(sys.executable).with_name("mpirun")
    mpirun = str(beside) if beside.exists() else shutil.which("mpirun") or "mpirun"
    about = {**dataclasses.asdict(case), "date": datetime.date.today().isoformat(), "commit": commit(),
             "machine": machine(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder) / "case.json"
        order.write_text(json.dumps(dataclasses.asdict(case)), encoding="utf-8")
        # `timeout` asks before it kills, so that mpirun takes its ranks with it
        done = subprocess.run(
            ["timeout", "-k", "10", str(timeout), mpirun, "-n", str(case.ranks), sys.executable, __file__, "--worker",
             str(order)], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            check=False)
        result = order.with_suffix(".result")
        if result.exists():
            return {**about, **json.loads(result.read_text(encoding="utf-8"))}
        late = f"not finished in {timeout:.0f} s" if done.returncode in (124, 137) else ""
        return {**about, "error": late or done.stderr.strip()[-400:] or f"exit code {done.returncode}"}


def commit() -> str:
    """Return the present Git commit, '-dirty' behind it if files differ from it."""
    return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True,
                          check=False).stdout.strip()


def machine() -> str:
    """Return the processor and how many cores there are."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8")) if info.exists() else None
    return f"{name[1] if name else platform.machine()}, {os.cpu_count()} cores"


# ---- the page ------------------------------------------------------------------------------------------------


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
        "side standard normal, initial guess zero. Beside it FP64 CG (GMRES where the matrix is not symmetric) with "
        "PETSc's GAMG, default options (with GMRES plain aggregation and SOR), to the same true residual. *Time "
        "ratio*: set-up and solve over GAMG's. "
        "*Memory*: peak of all ranks until the analog solves end. † : partly digital (the coarsest level by LU).", "",
        f"Machine: {all_of('machine')}. Dates: {all_of('date')}. Commits: {all_of('commit')}. Load "
        f"of the machine when cases began: up to {max((r['load'] for r in results.values()), default=0):.1f}.", "",
        f"{len(results)} cases; {len(results) - len(bad)} meet their target, {len(bad)} do not.", ""]
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


def main() -> int:
    """Run what is missing, within the time allowed; write data and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="", help="cases whose 'topic:key' has a match")
    parser.add_argument("--largest", type=float, default=1e9, metavar="UNKNOWNS", help="skip larger cases")
    parser.add_argument("--ranks", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4, 8])
    parser.add_argument("--minutes", type=float, default=1e9, help="start no further case after so many minutes")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds per case")
    parser.add_argument("--again", action="store_true", help="run cases again that are in scaling.json")
    parser.add_argument("--page-only", action="store_true", help="write page and figure from the data, run nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of scaling.json, .md, images/")
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.worker)
    data = arguments.out / "scaling.json"
    results: dict[str, Result] = json.loads(data.read_text(encoding="utf-8")) if data.exists() else {}
    wanted = [case for case in CASES if case.unknowns <= arguments.largest and case.ranks in arguments.ranks
              and re.search(arguments.only, f"{case.topic}:{case.key}")]
    todo = [] if arguments.page_only else [c for c in wanted if arguments.again or c.key not in results]
    start = time.monotonic()
    for done, case in enumerate(sorted(todo, key=lambda case: case.unknowns)):
        if time.monotonic() - start > 60 * arguments.minutes:
            print(f"scaling: time is up; {len(todo) - done} cases are left, run again")
            break
        begin = time.monotonic()
        results[case.key] = run(case, arguments.timeout)
        print(f"{case.key}: {verdict(results[case.key])} ({time.monotonic() - begin:.0f} s)", flush=True)
        write(results, arguments.out)
    write(results, arguments.out)
    failed = sum(1 for result in results.values() if misses(result))
    print(f"scaling: {len(results)} cases, {failed} miss their target; written to {arguments.out / 'scaling.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

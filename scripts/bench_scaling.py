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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]  # the tree that this script is in, installed or not

from bench_cases import CASES, PROBLEMS, Case, Result, System  # noqa: E402
from scaling_page import misses, verdict, write  # noqa: E402

RTOL, LIMIT, WARM = 1e-8, 300, 3_000  # target, most iterations, unknowns of the throw-away solve
ROOM = 2_500  # bytes an unknown that a hierarchy may take
TOUCH = "import sys, numpy; numpy.ones(int(sys.argv[1]))"
# GAMG's defaults need a symmetric matrix: with them GMRES does not converge from a mesh Péclet number of 1 on
UNSYMMETRIC = {"pc_gamg_agg_nsmooths": 0, "mg_levels_ksp_type": "richardson", "mg_levels_pc_type": "sor"}


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


def have_memory(comm: Any, unknowns: int) -> None:
    """Have the operating system find the memory that a solver will take, in a process of its own. Collective.

    A virtual machine gets memory from its host page by page, at about 1 GB/s the first time and 10 GB/s later: who runs
    first would pay for who runs next.
    """
    if comm.rank == 0:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        subprocess.run([sys.executable, "-c", TOUCH, str(int(min(ROOM * unknowns, free / 2)) // 8)], check=True)
    comm.Barrier()


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
    tiles = [int(n) for n in re.findall(r"(\d+) tiles(?: on \d+ of \d+ ranks)?,", text)]
    tiles += [1] * text.count(", one tile")
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
        have_memory(MPI.COMM_WORLD, system.size)
        found, ksp = analog(matrix, b, x)
        if case.topic == "shoot":
            found |= shots(ksp.getPC().getPythonContext())
        ksp.destroy()
        if case.topic != "shoot":
            have_memory(MPI.COMM_WORLD, system.size)
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
    """Return the present Git commit, '-dirty' behind it if files other than the docs, written here, differ from it."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return git("describe", "--always") + ("-dirty" if changed else "")


def machine() -> str:
    """Return the processor and how many cores there are."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8")) if info.exists() else None
    return f"{name[1] if name else platform.machine()}, {os.cpu_count()} cores"


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

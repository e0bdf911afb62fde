"""Cold air falls and spreads along the ground, or a warm bubble rises: benchmarks of models of dry convection.

    mpirun -n 2 python problems/density_current.py -case straka -resolution 100

Vorticity, streamfunction and potential temperature in a vertical plane, without sound waves (analogpde/fem/buoyant.py).
A step takes three solves with three matrices constant in time, each programmed once: streamfunction (options prefix
`poisson_`), vorticity (`vorticity_`) and potential temperature (`temperature_`). Options without a prefix, such as
-ksp_type, hold for all; prefixed ones overrule them.

Cases:
  straka  a cold blob in air of 300 K, as Straka et al. (International Journal for Numerical Methods in Fluids 17, 1993,
          1-22): the temperature is lowered by up to 15 K, the viscosity is 75 m²/s; 900 s. By symmetry one half is
          computed, 25.6 km × 6.4 km.
  bubble  a warm bubble, 0.5 K with Gaussian flanks, as Robert (Journal of the Atmospheric Sciences 50, 1993,
          1865-1873), in air of 300 K; 18 minutes, one half of 1 km × 1.5 km. He has no viscosity; here it is small.

-resolution is the distance of nodes, as the grid spacing of published tables; cells are -degree times as wide.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import analogpde.fem  # noqa: F401 - first: it loads MPI, PETSc and DOLFINx in the order they need

# isort: split
import numpy as np
from dolfinx import mesh
from numpy.typing import NDArray

from analogpde.errors import InvalidInput
from analogpde.fem import section
from analogpde.fem.arguments import on_root
from analogpde.fem.buoyant import COURANT_LIMIT, EQUATIONS, Atmosphere, BuoyantFlow, UnstableStep
from analogpde.fem.run import Run, Script
from analogpde.options import Option

STRAKA = "Straka et al. 1993, compressible, 25 m"
WINDS = (("largest horizontal wind", "u_max", 36.46), ("smallest horizontal wind", "u_min", -15.19),
         ("largest updraught", "w_max", 12.93), ("largest downdraught", "w_min", -15.95))
"""Name, name in the table, published value in m/s (ibid., table V)."""


@dataclass(frozen=True)
class Case:
    """A benchmark.

    Args:
        title: for people.
        size: width and height of the computed half in m.
        theta: θ₀ in K.
        temperature: θ' at t = 0 in K, of the Exner function at a height (a function) and coordinates (3, count).
        viscosity: in m²/s.
        resolution: default distance of nodes in m.
        t_end: in s.
        speed: bound of |u| + |w| for the default time step, m/s.
        level: θ' in K of the line that is its edge.
        seen: the picture ends there, m.
    """

    title: str
    size: tuple[float, float]
    theta: float
    temperature: Callable[[Callable[[Any], Any], NDArray], NDArray]
    viscosity: float
    resolution: float
    t_end: float
    speed: float
    level: float
    seen: tuple[float, float]


def cold_blob(exner: Callable[[Any], Any], x: NDArray) -> NDArray:
    """Return θ' of the cold ellipse: the temperature is lowered, and θ' = T'/Π."""
    distance = np.hypot(x[0] / 4000, (x[1] - 3000) / 2000)
    return np.where(distance < 1, -7.5 * (1 + np.cos(np.pi * np.minimum(distance, 1))) / exner(x[1]), 0.0)


def warm_bubble(_: Callable[[Any], Any], x: NDArray) -> NDArray:
    """Return θ' of the bubble: 0.5 K within 50 m of its centre, outside with a Gaussian of 100 m."""
    outside = np.maximum(np.hypot(x[0], x[1] - 260) - 50, 0.0)
    return 0.5 * np.exp(-((outside / 100) ** 2))


CASES = {
    "straka": Case("Density current of Straka et al. 1993", (25600.0, 6400.0), 300.0, cold_blob, 75.0, 200.0, 900.0,
                   45.0, -1.0, (19200.0, 4800.0)),
    "bubble": Case("Warm bubble of Robert 1993", (500.0, 1500.0), 300.0, warm_bubble, 0.25, 10.0, 1080.0, 4.0, 0.1,
                   (500.0, 1500.0)),
}

OPTIONS = (
    Option("case", "choice", "straka", "What to solve.", choices=tuple(CASES)),
    Option("dim", "choice", "2", "The flow is in a vertical plane.", choices=("2",)),
    Option("degree", "int", 2, "Polynomial degree of the elements; the time step's limit is known for these.", low=1,
           high=2),
    Option("resolution", "real", None, "Distance of nodes in m (default 200 for straka, 10 for bubble).", low=0.1),
    Option("equations", "choice", EQUATIONS[0], "What becomes of the equations of motion without sound.",
           choices=EQUATIONS),
    Option("viscosity", "real", None, "Diffusion of momentum and heat in m2/s (default: as the case says).", low=0.0),
    Option("panels", "int", 4, "Times shown in the picture, the last is the end.", low=1, high=12),
)


@dataclass(frozen=True)
class Plan:
    """Mesh and time stepping of a run."""

    case: Case
    degree: int
    resolution: float
    cells: tuple[int, int]
    dt: float
    steps: int
    air: Atmosphere


def plan(run: Run) -> Plan:
    """Return what the options ask for.

    Raises:
        InvalidInput: they do not fit the case.
    """
    case = CASES[run["case"]]
    resolution = run["resolution"] or case.resolution
    cells = tuple(round(length / (resolution * run["degree"])) for length in case.size)
    if min(cells) < 2 or any(not math.isclose(count * resolution * run["degree"], length, rel_tol=1e-9)
                             for count, length in zip(cells, case.size, strict=True)):
        width, height = case.size
        raise InvalidInput("-resolution", resolution, f"cells of -degree times this that fill {width:g} m × {height:g} "
                           "m, two at least", nearest(resolution * run["degree"], case.size, run["degree"]))
    t_end = run["t_end"] or case.t_end
    wanted = run["dt"] or 0.9 * COURANT_LIMIT * resolution / case.speed
    steps = run.count_steps(t_end, wanted)
    if run["dt"] is None:
        steps = math.ceil(steps / run["panels"]) * run["panels"]
    viscosity = case.viscosity if run["viscosity"] is None else run["viscosity"]
    return Plan(case, run["degree"], resolution, (cells[0], cells[1]), t_end / steps, steps,
                Atmosphere(case.theta, viscosity, run["equations"]))


def nearest(cell: float, size: tuple[float, float], degree: int) -> str:
    """Return the nearest resolutions whose cells fill the domain, of those that are easily typed.

    Args:
        cell: size of the cells that was asked for, m.
        size: of the domain, m.
        degree: of the elements.
    """
    side = math.gcd(*(int(length) for length in size))
    wanted = min(max(side / cell, 2.0), 1e6)

    def typed(counts: Iterable[int]) -> float | None:
        """Return the first resolution of so many cells along `side` that four digits write."""
        return next((found for found in (side / (count * degree) for count in counts)
                     if float(f"{found:.4g}") == found), None)

    near = (typed(range(math.floor(wanted), 1, -1)), typed(range(math.ceil(wanted), 10**7)))
    return f"Take {' or '.join(f'{found:g}' for found in dict.fromkeys(near) if found is not None)}."


class Record:
    """What is measured along the way, in a table that becomes <out>/diagnostics.csv. Collective.

    Args:
        flow: what is measured.
        todo: the plan.
    """

    def __init__(self, flow: BuoyantFlow, todo: Plan) -> None:
        self.flow, self.todo, self.rows = flow, todo, list[dict[str, float]]()
        self.pictures: list[tuple[float, tuple[NDArray, NDArray, NDArray]]] = []  # on rank 0

    def add(self) -> dict[str, float]:
        """Measure the present state.

        Raises:
            UnstableStep: it is beyond what the time step is stable for, or no number any more.
        """
        flow, todo = self.flow, self.todo
        low, high = flow.range(flow.theta)
        u, w, fast = flow.winds()
        kinetic, potential = flow.energies()
        courant = fast * todo.dt / todo.resolution
        row = {"time": flow.time, "theta_min": low, "theta_max": high, "u_min": u[0], "u_max": u[1], "w_min": w[0],
               "w_max": w[1], "courant": courant, "heat": flow.heat(), "kinetic_energy": kinetic,
               "potential_energy": potential, "edge": self.edge()}
        self.rows.append(row)
        if not courant < 2 * COURANT_LIMIT:
            raise UnstableStep(f"-dt {todo.dt:.4g} s is too long: the Courant number (|u| + |w|) dt / resolution is "
                               f"{courant:.2g} at t = {flow.time:.4g} s, and the scheme is stable up to "
                               f"{COURANT_LIMIT}. Take a shorter -dt, or a finer -resolution if the fields are full "
                               "of ripples; a smaller -ksp_rtol if you gave one.")
        return row

    def edge(self) -> float:
        """Return where the front is (or the top of the bubble), m; NaN if there is none."""
        nodes = self.flow.nodes(self.flow.theta)
        place = math.nan
        if nodes is not None:
            x, z, values = nodes
            if self.todo.case.level < 0:
                place = last_crossing(x, -values[0], -self.todo.case.level)
            else:
                place = last_crossing(z, values[:, 0], self.todo.case.level)
        return float(self.flow.comm.bcast(place))

    def keep_picture(self) -> None:
        """Keep θ' as it is for the picture."""
        nodes = self.flow.nodes(self.flow.theta)
        if nodes is not None:
            self.pictures.append((self.flow.time, nodes))

    def write(self, path: Path) -> None:
        """Write the table."""
        def table() -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.rows[0])
                writer.writeheader()
                writer.writerows(self.rows)
        on_root(self.flow.comm, table)


def last_crossing(x: NDArray, values: NDArray, level: float) -> float:
    """Return the largest x at which `values` falls through `level`, between nodes by a line; NaN if nowhere."""
    above = np.flatnonzero(values >= level)
    if not len(above):
        return math.nan
    i = int(above[-1])
    if i + 1 == len(x):
        return float(x[-1])
    return float(x[i] + (x[i + 1] - x[i]) * (values[i] - level) / (values[i] - values[i + 1]))


def rotors(x: NDArray, z: NDArray, theta: NDArray, height: float = 1200.0, prominence: float = 1.0) -> int:
    """Return how many rotors the current has: dips of θ' along a line at `height` (m) that are `prominence` (K) deep.

    A rotor lifts cold air through the line. A dip counts if θ' rises by `prominence` on both sides of it.
    """
    line = theta[int(np.argmin(np.abs(z - height)))]
    count, low, high, falling = 0, line[0], line[0], True
    for value in line[1:]:
        low, high = min(low, value), max(high, value)
        if falling and value > low + prominence:
            count, falling, high = count + 1, False, value
        elif not falling and value < high - prominence:
            falling, low = True, value
    return count


def solve(run: Run) -> None:
    """Run the case and compare it with what is published."""
    todo = plan(run)
    case = todo.case
    domain = mesh.create_rectangle(run.comm, [[0.0, 0.0], list(case.size)], list(todo.cells),
                                   mesh.CellType.quadrilateral)
    flow = BuoyantFlow(run, domain, todo.degree, todo.air, todo.dt, lambda x: case.temperature(todo.air.exner, x))
    run.describe(case.title, case=run["case"], equations=todo.air.equations, degree=todo.degree,
                 **{"resolution m": todo.resolution, "viscosity m2/s": todo.air.viscosity, "dt s": todo.dt,
                    "t_end s": todo.steps * todo.dt, "steps": todo.steps})
    record = Record(flow, todo)
    record.add()
    measured = max(1, todo.steps // 180)
    shown = {round(todo.steps * (i + 1) / run["panels"]) for i in range(run["panels"])}
    shots = run.snapshot_steps(todo.steps)
    programmed: dict[str, int] = {}
    try:
        with (run.writer([flow.theta, flow.omega, flow.psi]) as writer,
              run.progress(todo.steps, run["case"]) as progress):
            writer.write(0.0)
            for step in range(1, todo.steps + 1):
                flow.step()
                programmed = programmed or tiles_programmed(run)
                if step % measured == 0 or step == todo.steps:
                    row = record.add()
                if step in shots:
                    writer.write(flow.time)
                if step in shown:
                    record.keep_picture()
                progress.step(f"t {flow.time:.4g} s  edge {record.rows[-1]['edge']:.0f} m")
    finally:
        if run.folder is not None:
            record.write(run.folder / "diagnostics.csv")
            run.problem["files"].append(str(run.folder / "diagnostics.csv"))
    answer(run, record, row)
    again = sum(tiles_programmed(run).values()) - sum(programmed.values())
    run.answer("tiles programmed after the first step", again, expected=0.0, tolerance=0.0,
               source="every matrix is constant")
    run.draw(lambda path: draw(run, record, path), f"{case.title}: θ'")


def tiles_programmed(run: Run) -> dict[str, int]:
    """Return how many tiles each matrix has been programmed on so far, by prefix."""
    return {prefix: solves.operations.tiles_programmed for prefix, solves in run.log.solves.items()}


def answer(run: Run, record: Record, end: dict[str, float]) -> None:
    """Put into the report what the case is judged by."""
    flow, todo, rows = record.flow, record.todo, record.rows
    straka = run["case"] == "straka"
    published = straka and math.isclose(end["time"], 900.0) and todo.air.viscosity == 75.0
    fine = published and todo.resolution <= 100

    def compared(expected: float, tolerance: float | None) -> dict[str, Any]:
        return {"expected": expected, "source": STRAKA} | (
            {"tolerance": tolerance} if tolerance is not None and fine else {}) if published else {}

    if not math.isnan(end["edge"]):
        run.answer("front (-1 K at the ground)" if straka else "top of the bubble (0.1 K on its axis)", end["edge"],
                   "m", **compared(15537.44, 340.0))
    run.answer("smallest potential temperature perturbation", end["theta_min"], "K", **compared(-9.77375, 0.75))
    run.answer("largest potential temperature perturbation", end["theta_max"], "K", **compared(0.0, 0.2))
    for name, key, expected in WINDS:
        run.answer(name, end[key], "m/s", **compared(expected, None))
    if straka:
        nodes = flow.nodes(flow.theta)
        count = flow.comm.bcast(rotors(*nodes) if nodes is not None else 0)
        run.answer("rotors", count, **compared(3, 0.0))
    run.answer("relative change of the integral of density times theta'", flow.heat() / flow.first_heat - 1)
    run.answer("the same of the field as solved", flow.heat_of_field() / flow.first_heat - 1)
    start = rows[0]
    released = start["potential_energy"] - end["potential_energy"]
    if released:
        run.answer("kinetic energy, of the potential energy released",
                   (end["kinetic_energy"] - start["kinetic_energy"]) / released)
    run.answer("largest Courant number", max(row["courant"] for row in rows))


def draw(run: Run, record: Record, path: Path) -> None:
    """Draw θ' at several times."""
    if run.comm.rank:
        return
    todo = record.todo
    straka = todo.case.level < 0
    levels = np.arange(-16.5, 0.0, 1.0) if straka else np.arange(0.05, 0.56, 0.05)
    panels = [(x / 1e3, z / 1e3, theta, f"t = {time:.4g} s") for time, (x, z, theta) in record.pictures]
    section.contours(path, panels, levels=levels, title=f"{todo.case.title}, {todo.resolution:g} m",
                     label="θ' (K)", seen=(todo.case.seen[0] / 1e3, todo.case.seen[1] / 1e3),
                     colours="Blues_r" if straka else "YlOrRd", across=not straka, mirror=not straka)


SCRIPT = Script("density_current", __doc__, OPTIONS, solve, prefixes=("temperature_", "vorticity_", "poisson_"),
                refused={"mesh": "density_current.py makes its own rectangle",
                         "n": "-resolution is the distance of nodes in m"})
main = SCRIPT.main

if __name__ == "__main__":
    sys.exit(main())

"""Rotating shallow water on the sphere: the standard test cases of global weather models.

    mpirun -n 2 python problems/shallow_water.py -case galewsky -level 3

    ∂ζ/∂t + ∇·(η u) = 0,   ∂δ/∂t = n·∇×(η u) − ∇²(½|u|² + g(h + b)),   ∂h/∂t + ∇·(h u) = 0

Vorticity and divergence in curved P2 triangles on an icosahedral sphere; gravity waves are implicit. A step takes six
solves with three matrices constant in time, each programmed once: two Poisson equations (options prefix `poisson_`,
singular: constants), three mass matrices (`mass_`) and a Helmholtz equation (`helmholtz_`). Options without a prefix,
such as -ksp_type, hold for all; prefixed ones overrule them.

Cases: tc2 (steady zonal flow), tc5 (mountain) and tc6 (Rossby-Haurwitz wave) of Williamson et al. (Journal of
Computational Physics 102, 1992); galewsky, the unstable jet of Galewsky et al. (Tellus 56A, 2004), galewsky_balanced
without its perturbation; or -initial, a Python file or checkpoint of your own.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import analogpde.fem  # noqa: F401 - first: it loads MPI, PETSc and DOLFINx in the order they need

# isort: split
import numpy as np
from dolfinx import fem
from numpy.typing import NDArray

from analogpde.fem import checkpoint, latlon, multistep, picture, sphere_cases
from analogpde.fem.arguments import on_root
from analogpde.fem.run import Run, Script
from analogpde.fem.series import Series
from analogpde.fem.shallow_water import CLOSURES, UPWIND, ShallowWater
from analogpde.fem.sphere import MAX_LEVEL
from analogpde.fem.sphere_cases import DAY
from analogpde.fem.sphere_plan import CHECKPOINT, CLOSURE, Plan, plan
from analogpde.fem.system import NotConverged
from analogpde.options import Option

OPTIONS = (
    Option("case", "choice", "tc2", "Initial state and what it is compared with.", choices=sphere_cases.NAMES),
    Option("level", "int", 3, "Subdivisions of the icosahedron: 20*4^level cells.", low=0, high=MAX_LEVEL),
    Option("dim", "choice", "2", "The sphere is a surface.", choices=("2",)),
    Option("degree", "int", 2, "Polynomial degree of the elements; the cells are curved by degree 2.", low=1, high=2),
    Option("n", "int", None, "Cells along an edge of the icosahedron, a power of two: another way to say -level.",
           low=1, high=2**MAX_LEVEL),
    Option("days", "real", None, "Simulated time in days; -t_end says it in seconds (default: as published).", low=0.0,
           high=3650.0, open_low=True),
    Option("rotation", "real", 0.0, "Angle between the axes of Earth and flow in case tc2, degrees.", low=-360.0,
           high=360.0),
    Option("upwind", "real", UPWIND, "Upwinding of the vorticity, in units of cell/(2·degree·wind); 0: none.", low=0.0,
           high=2.0),
    Option("closure", "choice", CLOSURES[0], "What the upwinding takes enstrophy out of: subscales, which the mesh "
           "cannot show; all scales (anticipated potential vorticity); bounded: subscales, but all where the potential "
           "vorticity has left its initial range.", choices=CLOSURES),
    Option("viscosity", "real", 0.0, "Viscosity of the vorticity, m²/s.", low=0.0),
    Option("initial", "text", None, "Initial state instead of a case: a Python file that defines vorticity(longitude, "
           "latitude) and depth(longitude, latitude), or a checkpoint (.npz)."),
    Option("checkpoint", "int", 0, "Steps between checkpoints in <out>/checkpoint.npz; 0: none.", low=0),
    Option("restart", "flag", False, "Go on from <out>/checkpoint.npz."),
    Option("reference", "text", None, "Checkpoint of this case on the same or a finer level, at the time where the run "
           "ends: the height of the surface is compared with its."),
    Option("animation", "choice", "none", "Animation of the vorticity (mp4 needs the program ffmpeg).",
           choices=("none", "gif", "mp4")),
    Option("frames", "int", 60, "Pictures of the animation.", low=2, high=10_000),
)

# Depth errors of a run at least as long and fine as the table in docs/problems.md: see there.
TC2_TOLERANCE = {3: (5e-6, 3e-5), 4: (4e-7, 3e-6)}

NORMS = ("l1", "l2", "l∞")  # Williamson's, equations 82 to 84

STILL = 1e-14  # relative; the finest mesh of a steady flow has a thousand times this error

LOST = 2.0  # times the advective CFL up to which a step is stable: nothing comes back from there


class Simulation:
    """A run of the model with everything that is written about it. Collective.

    Args:
        run: the run.
        todo: what to run.
    """

    def __init__(self, run: Run, todo: Plan) -> None:
        self.run, self.todo = run, todo
        self.step = todo.first
        self._counted: dict[str, tuple[int, int]] = {}
        depth = todo.meta["reference_depth"] if run["restart"] else None
        self.closure = {name: todo.meta[name] if run["restart"] else run[name] for name in CLOSURE}
        self.model = ShallowWater(run, todo.case, todo.level, todo.degree, todo.dt, depth, **self.closure,
                                  bounds=todo.meta["bounds"] if run["restart"] else None)
        self.nodes = checkpoint.NodeOrder(self.model.space)
        if todo.fields is not None:
            self._load()
        self.exact = self.model.interpolate(todo.case.depth, "exact") if todo.case.steady else None
        # read now: a run may write its own checkpoint there
        self.finer = checkpoint.read(Path(run["reference"]), self.nodes, finer=True)["depth_0"] if (
            run["reference"] is not None) else None
        self.sampler = latlon.Sampler(todo.level, todo.degree) if run.comm.rank == 0 and self._draws() else None
        path = run.folder / "diagnostics.csv" if run.folder is not None else None
        self.series = Series(run.comm, path, todo.meta["row"] if run["restart"] else None)
        self._warned = False
        if path is not None:
            run.problem["files"].append(str(path))

    def _draws(self) -> bool:
        run = self.run
        return run.folder is not None and (run["picture"] or run["animation"] != "none") and picture.available()

    def _load(self) -> None:
        todo, model = self.todo, self.model
        assert todo.fields is not None
        fields = checkpoint.read(todo.fields, self.nodes)
        if self.run["restart"]:
            model.restore(fields)
            shots = todo.meta["shots"]
            others = checkpoint.other_solves(todo.meta, self.run.comm.size, self.run.log.options)
            if not any(text.startswith("ranks") or "analog" in text for text in others):
                for prefix, counts in shots.items():
                    model.systems[prefix].shots = counts
        else:
            model.begin_from(fields)

    def save(self) -> None:
        """Write a checkpoint."""
        run, todo, model = self.run, self.todo, self.model
        assert run.folder is not None
        self.series.flush()  # what the checkpoint says is done is on the disk
        shots = {prefix: system.shots for prefix, system in model.systems.items() if system.shots}
        checkpoint.write(run.folder / CHECKPOINT, self.nodes, model.fields(), {
            "step": self.step, "row": self.series.rows[-1], "time": self.step * todo.dt, "dt": todo.dt,
            "t_end": todo.steps * todo.dt,
            "level": todo.level, "degree": todo.degree, "case": todo.name, "rotation": todo.rotation,
            "initial": todo.initial,
            "reference_depth": model.reference,
            "initial_hash": checkpoint.digest(run.comm, Path(todo.initial)) if todo.initial else "",
            "bounds": model.bounds, **self.closure,
            "ranks": run.comm.size, "shots": shots, "options": checkpoint.solver_options(run.log.options)})

    def advance(self) -> None:
        """Take a step, and add the new state to the series.

        Raises:
            NotConverged: a solve failed, or the state is none any more; if because the fields have grown beyond
                bounds, it says so.
        """
        cfl = self.series.rows[-1]["advective_cfl"]
        if not cfl <= LOST * multistep.STABLE:
            raise NotConverged(self._unstable())
        if cfl > multistep.STABLE and not self._warned:
            self._warned = True
            self.run.say(f"shallow_water: the advective CFL is {cfl:.3g} at day {self.step * self.todo.dt / DAY:.2f}, "
                         f"waves may grow above {multistep.STABLE}. Take a smaller -dt than {self.todo.dt:g} s.")
        try:
            self.model.step()
        except NotConverged as problem:
            advice = f"{self._unstable()} ({problem})" if cfl > multistep.STABLE else str(problem)
            raise NotConverged(advice) from problem
        self.step += 1
        row = self.look()
        shallowest = self.model.extremes(self.model.depth.function)[0]
        if not (math.isfinite(row["energy"]) and shallowest > 0.0 and row["advective_cfl"] <= LOST * multistep.STABLE):
            raise NotConverged(self._unstable(shallowest))

    def _unstable(self, shallowest: float | None = None) -> str:
        """Return what has gone wrong with the present state."""
        row, dt = self.series.rows[-1], self.todo.dt
        depth = f", smallest depth {shallowest:.3g} m" if shallowest is not None and not shallowest > 0.0 else ""
        return (f"The run is unstable at day {self.step * dt / DAY:.2f}: advective CFL {row['advective_cfl']:.3g}, "
                f"stable up to {multistep.STABLE}, gravity-wave CFL {row['gravity_cfl']:.3g}{depth}. Take a smaller "
                f"-dt than {dt:g} s, or a smaller -ksp_rtol if you gave one; if that does not help, the initial fields "
                "are far from any balance.")

    def look(self) -> dict[str, float]:
        """Add the present state to the series, and return what was added."""
        model, now = self.model, self.model.diagnostics()
        row: dict[str, float] = {
            "step": self.step, "day": self.step * self.todo.dt / DAY, "mass": now.mass, "energy": now.energy,
            "potential_enstrophy": now.potential_enstrophy, "divergence_energy": now.divergence_energy,
            "speed": now.speed, "advective_cfl": now.advective, "gravity_cfl": now.gravity}
        if self.exact is not None:
            row |= dict(zip(("l1", "l2", "linf"), model.errors(self.exact), strict=True))
        if self.todo.case.wave_number:
            row |= dict(zip(("wave_amplitude", "wave_degrees"), model.wave(self.todo.case.wave_number), strict=True))
        for prefix in model.systems:  # of this step
            solves = self.run.log.solves.get(prefix)
            total = (solves.iterations_total, solves.inv_shots) if solves is not None else (0, 0)
            before = self._counted.get(prefix, (0, 0))
            row |= {f"{prefix}iterations": total[0] - before[0], f"{prefix}inv_shots": total[1] - before[1]}
            self._counted[prefix] = total
        self.series.add(row)
        return row

    def maps(self) -> tuple[Any, Any]:
        """Return vorticity in 1e-5/s and the height of the surface in m as maps on rank 0. Collective."""
        model = self.model
        surface = model.depth.values + model.ground.x.petsc_vec.array
        fields = [self.nodes.gather(values) for values in (1e5 * model.vorticity.values, surface)]
        if self.sampler is None:
            return None, None
        return tuple(self.sampler(values) for values in fields if values is not None)

    def frame(self, folder: Path) -> None:
        """Draw a picture of the animation. Collective."""
        vorticity, surface = self.maps()
        if self.sampler is not None:
            peak = 2e5 * float(np.abs(self.todo.case.vorticity(np.zeros(721), np.linspace(-1.57, 1.57, 721))).max())
            panel = latlon.Panel(vorticity, f"day {self.step * self.todo.dt / DAY:.2f}", "10⁻⁵ 1/s",
                                 contours=surface, limits=(-peak, peak))
            latlon.draw(folder / f"{self.step:08d}.png", self.sampler, [panel], title=self.todo.case.title,
                        south=self.todo.case.south, dpi=90)

    def draw(self, path: Path) -> None:
        """Draw the state. Collective."""
        vorticity, surface = self.maps()
        error = (None if self.exact is None
                 else self.nodes.gather(self.model.depth.values - self.exact.x.petsc_vec.array))
        if self.sampler is None:
            return
        panels = [latlon.Panel(vorticity, "relative vorticity", "10⁻⁵ 1/s", contours=surface)]
        if error is not None:
            panels.append(latlon.Panel(self.sampler(error), "error of the depth", "m"))
        else:
            panels.append(latlon.Panel(surface, "height of the surface", "m", colours="viridis", symmetric=False,
                                       contours=surface))
        latlon.draw(path, self.sampler, panels,
                    title=f"{self.todo.case.title}, day {self.step * self.todo.dt / DAY:g}", south=self.todo.case.south)


def solve(run: Run) -> None:
    """Run the case, write what was asked for, and answer."""
    todo = plan(run)
    simulation = Simulation(run, todo)
    model = simulation.model
    run.describe(f"Shallow water on the sphere: {todo.case.title}", level=todo.level, degree=todo.degree,
                 **{"dt s": todo.dt, "days": todo.steps * todo.dt / DAY, "steps": todo.steps,
                    "reference depth m": model.reference, "unknowns": simulation.nodes.size})
    if todo.case.source:
        run.describe(run.problem["title"], source=todo.case.source)
    if not run["restart"]:
        if run.folder is not None and (run.folder / CHECKPOINT).exists():
            run.say(f"{run.folder / CHECKPOINT} is of another run, which ends here: its table is begun anew. (-restart "
                    "goes on from it.)")
        model.diagnose()
        simulation.look()
    shots = run.snapshot_steps(todo.steps) if run["snapshots"] else set()
    frames = _frames(run, todo.steps)
    fields = [unknown.function for unknown in (model.vorticity, model.depth, model.streamfunction, model.potential)]
    every = run["checkpoint"]
    left = todo.steps - todo.first
    if not left:
        run.say(f"The checkpoint is at day {todo.steps * todo.dt / DAY:g}, where this run ends: nothing is left to do. "
                "Give more -days to go on.")
    stem = f"fields-{todo.first:08d}" if run["restart"] else "fields"
    with run.writer([*fields, model.ground], stem) as writer, run.progress(left, "shallow_water") as progress:
        if todo.first == 0:
            writer.write(0.0)
            if frames:
                simulation.frame(_frame_folder(run))
        while simulation.step < todo.steps:
            simulation.advance()
            if simulation.step in shots:
                writer.write(simulation.step * todo.dt)
            if simulation.step in frames:
                simulation.frame(_frame_folder(run))
            if every and (simulation.step % every == 0 or simulation.step == todo.steps):
                simulation.save()
            progress.step(f"day {simulation.step * todo.dt / DAY:.2f} of {todo.steps * todo.dt / DAY:g}")
    simulation.series.flush()
    if every:
        run.problem["files"].append(str(Path(str(run.folder)) / CHECKPOINT))
    answer(simulation)
    run.draw(simulation.draw, f"{todo.case.title} at the end")
    if frames:
        _animate(run)


def _frames(run: Run, steps: int) -> set[int]:
    """Return the steps after which the animation has a picture; make its folder. Collective."""
    if run["animation"] == "none" or run.folder is None:
        return set()

    def prepare() -> None:
        folder = _frame_folder(run)
        folder.mkdir(exist_ok=True)
        if not run["restart"]:
            for old in folder.glob("*.png"):
                old.unlink()

    on_root(run.comm, prepare)
    count = min(run["frames"] - 1, steps)
    return {round(steps * (i + 1) / count) for i in range(count)}


def _frame_folder(run: Run) -> Path:
    assert run.folder is not None
    return run.folder / "frames"


def _animate(run: Run) -> None:
    assert run.folder is not None
    path = run.folder / f"shallow_water.{run['animation']}"
    on_root(run.comm, lambda: latlon.animate(path, sorted(_frame_folder(run).glob("*.png"))))
    run.problem["files"].append(str(path))


def answer(simulation: Simulation) -> None:
    """Put into the report what the case is judged by."""
    run, todo, model, series = simulation.run, simulation.todo, simulation.model, simulation.series
    first, last = series.rows[0], series.rows[-1]
    days = last["day"]
    if simulation.exact is not None:
        fine = (todo.degree == 2 and days <= 5.0 + 1e-9 and todo.level in TC2_TOLERANCE and run["initial"] is None
                and run["case"] == "tc2")
        limits = TC2_TOLERANCE[todo.level] if fine else (None, None)
        if last["l2"] < STILL and last["step"]:
            run.say("shallow_water: the solves have not changed the depth: it is the initial state, not a solution. "
                    "Take a smaller -ksp_rtol.")
        for name, key, limit in zip(NORMS, ("l1", "l2", "linf"), (None, *limits), strict=True):
            run.answer(f"relative {name} error of the depth", last[key], **(
                {"expected": 0.0, "tolerance": limit, "source": todo.case.source} if limit else {}))
        swirl = model.interpolate(todo.case.vorticity, "exact")
        for name, error in zip(NORMS, model.errors(swirl, model.vorticity.function), strict=True):
            run.answer(f"relative {name} error of the vorticity", error)
    for name, key in (("mass", "mass"), ("energy", "energy"), ("potential enstrophy", "potential_enstrophy")):
        if first[key]:  # a state of rest without rotation has no potential enstrophy
            run.answer(f"relative change of {name}", last[key] / first[key] - 1)
    if simulation.finer is not None:
        compare(run, model, simulation.finer)
    run.answer("divergence energy at the end", last["divergence_energy"], "m⁴/s²")
    early = next((row for row in series.rows if row["day"] >= 2.0 - 1e-9), None)
    if early is not None and early is not last and early["divergence_energy"]:
        run.answer("divergence energy at the end over that at day 2",
                   last["divergence_energy"] / early["divergence_energy"])
    for name, function, scale, unit in (("vorticity", model.vorticity.function, 1e5, "1e-5/s"),
                                        ("depth", model.depth.function, 1.0, "m")):
        low, high = model.extremes(function)
        run.answer(f"smallest {name}", scale * low, unit)
        run.answer(f"largest {name}", scale * high, unit)
    run.answer("potential vorticity beyond its initial range, of that range", model.beyond())
    run.answer("largest wind", max(row["speed"] for row in series.rows), "m/s")
    run.answer("largest advective CFL", max(row["advective_cfl"] for row in series.rows))
    run.answer("gravity-wave CFL", last["gravity_cfl"])
    number = todo.case.wave_number
    if number and len(series.rows) > 2:
        # The crests' longitude; whole turns are those of the smallest movement in a step.
        phases = np.unwrap([row["wave_degrees"] for row in series.rows], period=360 / number)
        time = np.array([row["day"] for row in series.rows])
        run.answer("rotation of the wave", float(np.polyfit(time, phases, 1)[0]), "degrees/day")
        run.answer("amplitude of the wave over that at the start", last["wave_amplitude"] / first["wave_amplitude"])


def compare(run: Run, model: ShallowWater, depth: NDArray) -> None:
    """Put into the report how far the surface is from that over another depth, owned values in m. Collective."""
    ours, theirs = fem.Function(model.space), fem.Function(model.space)
    for function, values in ((ours, model.depth.values), (theirs, depth)):
        function.x.petsc_vec.array[:] = values + model.ground.x.petsc_vec.array
        function.x.scatter_forward()
    for name, difference in zip(NORMS, model.errors(theirs, ours), strict=True):
        run.answer(f"relative {name} difference of the surface from the reference", difference)


SCRIPT = Script("shallow_water", __doc__, OPTIONS, solve, prefixes=("poisson_", "mass_", "helmholtz_"),
                refused={"mesh": "shallow_water.py makes its own sphere"})
main = SCRIPT.main

if __name__ == "__main__":
    sys.exit(main())

"""Transient heat conduction with convection: a heat sink on a chip, a box with an exact solution, NAFEMS T3 and T4.

    mpirun -n 2 python problems/heat.py -ksp_type analog

Cases:
  heat_sink  a finned aluminium heat sink on a silicon die (the committed mesh, or -mesh FILE with the same group
             names); the die's power is switched on at t = 0 and air carries the heat away from the fins
  box        unit square or cube at zero on its boundary: the mode Π sin(π xᵢ) decays as exp(−dim π² t)
  nafems_t3  NAFEMS benchmark T3: a bar heated at one end by a sine in time; 36.60 °C at x = 0.08 m, t = 32 s
  nafems_t4  NAFEMS benchmark T4: a plate with convection, steady; 18.3 °C at (0.6 m, 0.2 m)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import analogpde.fem  # noqa: F401 - first: it loads MPI, PETSc and DOLFINx in the order they need

# isort: split
import numpy as np
import ufl
from dolfinx import fem, mesh
from mpi4py import MPI

from analogpde.errors import InvalidInput
from analogpde.fem import named_mesh, picture
from analogpde.fem.conduction import Conduction, Convection, EnergyBalance, Material, per_region
from analogpde.fem.forms import Dirichlet, integral, point_value
from analogpde.fem.render import View
from analogpde.fem.run import Run, Script
from analogpde.fem.stepping import BackwardDifference, Scheme, Theta
from analogpde.options import Option

MESH = Path(__file__).resolve().parent.parent / "meshes" / "heat_sink.xdmf"

OPTIONS = (
    Option("case", "choice", "heat_sink", "What to solve.", choices=("heat_sink", "box", "nafems_t3", "nafems_t4")),
    Option("n", "int", None, "Cells per side (default: as the case says); the heat sink has its own mesh.", low=1,
           high=100_000),
    Option("scheme", "choice", "bdf2", "Time stepping.", choices=("theta", "bdf2")),
    Option("theta", "real", 0.5, "Of the theta scheme: 0.5 Crank-Nicolson, 1 backward Euler; chooses -scheme theta.",
           low=0.5, high=1.0),
    Option("power", "real", 50.0, "Heat sink: power of the chip in W.", low=0.0),
    Option("convection", "real", 50.0, "Heat sink: heat transfer coefficient of the fins in W/(m2 K); 50 is a small "
           "fan.", low=0.0),
    Option("ambient", "real", 25.0, "Heat sink: temperature of the air, and of everything at t = 0, in deg C.",
           low=-273.15),
)

MATERIALS = {
    "sink": Material(209.0, 2690.0, 900.0, "aluminium 6063-T5: ASM Handbook 2, properties of wrought alloys"),
    "pad": Material(6.0, 3100.0, 900.0, "a filled silicone gap pad; typical of data sheets"),
    "chip": Material(148.0, 2330.0, 712.0, "silicon at 300 K: Incropera & DeWitt, table A.1"),
}
"""By name of the mesh's volume."""

AIR_WASHED = ("fins", "convection")
"""Names of surfaces with convection; all others are insulated."""


@dataclass
class Case:
    """A heat problem, ready to run.

    Args:
        body: the assembled problem.
        title: for people.
        dt, t_end: defaults in s; t_end = 0: steady.
        initial: temperature at t = 0, maps coordinates (3, count) to °C (count,).
        parameters: for the report.
        finish: computes answers from the final temperature and time.
        draw: draws the final temperature; gets temperature, path, and the curve of the maximum over time.
    """

    body: Conduction
    title: str
    dt: float
    t_end: float
    initial: Callable[[Any], Any]
    finish: Callable[[Run, fem.Function, float], None]
    draw: Callable[[Run, fem.Function, Path, picture.Curve], None]
    parameters: dict[str, Any] = field(default_factory=dict)


def heat_sink(run: Run) -> Case:
    """The heat sink: materials and surfaces by the names of the mesh's groups."""
    if "n" in run.given:
        raise InvalidInput("-n", run["n"], "no -n with -case heat_sink, which has its own mesh",
                           "`python scripts/make_meshes.py` makes a finer one from meshes/heat_sink.py.")
    solid = named_mesh.read(run.comm, run["mesh"] or MESH)
    solid.require(volumes=["chip"])
    for name in solid.volumes:
        if name not in MATERIALS:
            raise InvalidInput("-mesh", solid.source, f"volumes named {', '.join(MATERIALS)}", f"It has {name!r}.")
    washed = tuple(number for name, number in solid.surfaces.items() if name in AIR_WASHED)
    if not washed:
        solid.require(surfaces=AIR_WASHED[:1])
    assert solid.cells is not None
    domain, groups = solid.mesh, solid.volumes
    space = fem.functionspace(domain, ("Lagrange", run["degree"]))
    chip = solid.dx()(groups["chip"])
    volume = integral(run.comm, fem.Constant(domain, 1.0) * chip)
    with run.assembling():
        body = Conduction(
            space,
            per_region(domain, solid.cells, {groups[name]: MATERIALS[name].conductivity for name in groups}),
            per_region(domain, solid.cells,
                       {groups[name]: MATERIALS[name].density * MATERIALS[name].specific_heat for name in groups}),
            sources=[(run["power"] / volume, chip)],
            convection=[Convection(solid.ds()(washed), run["convection"], run["ambient"])],
        )

    def finish(run: Run, T: fem.Function, time: float) -> None:
        owned = T.x.array[: space.dofmap.index_map.size_local]
        low = run.comm.allreduce(float(owned.min(initial=np.inf)), MPI.MIN)
        run.answer("highest temperature", largest(run.comm, T), "°C")
        run.answer("lowest temperature", low, "°C")
        if run["power"] > 0:
            run.answer("thermal resistance so far", (largest(run.comm, T) - run["ambient"]) / run["power"], "K/W")
            run.answer("carried away by air, of the power", body.lost(T) / run["power"])

    def draw(run: Run, T: fem.Function, path: Path, curve: picture.Curve) -> None:
        title = f"Heat sink, chip at {run['power']:g} W, {curve.x[-1]:g} s after power-on"
        picture.solid(path, T, title=title, label="temperature (°C)", colours="turbo",
                      views=[("from above", View(-50, 34)), ("from below: the die", View(-50, -36))],
                      history=[curve], history_labels=("time (s)", "highest temperature (°C)"))

    return Case(body, "Heat sink on a chip", 5.0, 300.0, lambda x: np.full(x.shape[1], run["ambient"]), finish, draw,
                {"power W": run["power"], "convection W/(m2 K)": run["convection"], "ambient C": run["ambient"],
                 "mesh": Path(solid.source).name})


def box(run: Run) -> Case:
    """The decaying mode on the unit square or cube, k = ρc = 1."""
    if run["mesh"] is not None:
        raise InvalidInput("-mesh", run["mesh"], "no mesh with -case box")
    dimension = run["dim"]
    n = run["n"] or (32 if dimension == 2 else 16)
    make = mesh.create_unit_square if dimension == 2 else mesh.create_unit_cube
    domain = make(run.comm, *[n] * dimension)
    space = fem.functionspace(domain, ("Lagrange", run["degree"]))
    boundary = mesh.locate_entities_boundary(domain, dimension - 1, lambda x: np.full(x.shape[1], True))
    with run.assembling():
        body = Conduction(space, 1.0, 1.0, dirichlet=Dirichlet(space, boundary))

    def finish(run: Run, T: fem.Function, time: float) -> None:
        x = ufl.SpatialCoordinate(domain)
        exact: Any = fem.Constant(domain, math.exp(-dimension * math.pi**2 * time))
        for i in range(dimension):
            exact = exact * ufl.sin(math.pi * x[i])
        measure = ufl.dx(metadata={"quadrature_degree": 2 * run["degree"] + 4})
        error = math.sqrt(integral(run.comm, (T - exact) ** 2 * measure) / integral(run.comm, exact**2 * measure))
        run.answer("relative L2 error", error)

    def draw(run: Run, T: fem.Function, path: Path, curve: picture.Curve) -> None:
        title = f"Decaying mode at t = {curve.x[-1]:g} s"
        if dimension == 2:
            picture.plane(path, T, title=title, label="temperature (°C)", colours="plasma", unit="")
        else:
            picture.solid(path, T, title=title, label="temperature (°C)", views=[("", View(40, 28))],
                          keep=lambda points: (points < 0.5).any(axis=1))

    return Case(body, "Decaying mode in a box", 0.005, 0.05,
                lambda x: np.prod(np.sin(math.pi * x[:dimension]), axis=0), finish, draw,
                {"dim": dimension, "cells per side": n})


def nafems_t3(run: Run) -> Case:
    """T3: a steel bar of 0.1 m, 0 °C at x = 0 and 100 sin(π t/40) °C at x = 0.1 m, starting from 0 °C."""
    _own_mesh(run)
    n = run["n"] or 50
    domain = mesh.create_interval(run.comm, n, [0.0, 0.1])
    space = fem.functionspace(domain, ("Lagrange", run["degree"]))
    ends = mesh.locate_entities_boundary(domain, 0, lambda x: np.full(x.shape[1], True))
    dirichlet = Dirichlet(space, ends, lambda x, t: np.where(x[0] > 0.05, 100 * math.sin(math.pi * t / 40), 0.0))
    with run.assembling():
        body = Conduction(space, 35.0, 7200.0 * 440.5, dirichlet=dirichlet)

    def finish(run: Run, T: fem.Function, time: float) -> None:
        published = {"expected": 36.60, "tolerance": 0.1, "source": "NAFEMS, The Standard NAFEMS Benchmarks (1990), T3"}
        run.answer("temperature at x = 0.08 m", point_value(T, [0.08]), "°C",
                   **(published if math.isclose(time, 32.0) else {}))

    def draw(run: Run, T: fem.Function, path: Path, curve: picture.Curve) -> None:
        x = space.tabulate_dof_coordinates()[: space.dofmap.index_map.size_local, 0]
        parts = run.comm.gather((x, T.x.array[: len(x)]))
        if parts is not None:
            x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
            order = np.argsort(x)
            picture.lines(run.comm, path, [picture.Curve(x[order], y[order], "computed"),
                                           picture.Curve([0.08], [36.60], "NAFEMS T3, t = 32 s", "ko")],
                          title=f"NAFEMS T3 at t = {curve.x[-1]:g} s", labels=("x (m)", "temperature (°C)"))

    return Case(body, "NAFEMS T3: transient conduction in a bar", 0.25, 32.0, lambda x: np.zeros(x.shape[1]), finish,
                draw, {"cells": n})


def nafems_t4(run: Run) -> Case:
    """T4: a plate 0.6 m × 1.0 m, 100 °C below, insulated on the left, convection to 0 °C right and above; steady."""
    _own_mesh(run)
    n = run["n"] or 36
    domain = mesh.create_rectangle(run.comm, [[0.0, 0.0], [0.6, 1.0]], [n, max(1, round(n / 0.6))])
    space = fem.functionspace(domain, ("Lagrange", run["degree"]))
    bottom = mesh.locate_entities_boundary(domain, 1, lambda x: np.isclose(x[1], 0))
    washed = mesh.locate_entities_boundary(domain, 1, lambda x: np.isclose(x[0], 0.6) | np.isclose(x[1], 1))
    tags = mesh.meshtags(domain, 1, np.sort(washed), np.ones(len(washed), dtype=np.int32))
    film = Convection(ufl.Measure("ds", domain=domain, subdomain_data=tags)(1), 750.0, 0.0)
    with run.assembling():
        body = Conduction(space, 52.0, 1.0, convection=[film],
                          dirichlet=Dirichlet(space, bottom, lambda x, _: np.full(x.shape[1], 100.0)))

    def finish(run: Run, T: fem.Function, time: float) -> None:
        run.answer("temperature at E = (0.6 m, 0.2 m)", point_value(T, [0.6, 0.2]), "°C", expected=18.3, tolerance=0.2,
                   source="NAFEMS, The Standard NAFEMS Benchmarks (1990), T4")

    def draw(run: Run, T: fem.Function, path: Path, curve: picture.Curve) -> None:
        picture.plane(path, T, title="NAFEMS T4", label="temperature (°C)", colours="plasma")

    return Case(body, "NAFEMS T4: conduction with convection", 0.0, 0.0, lambda x: np.zeros(x.shape[1]), finish, draw,
                {"cells per short side": n})


def _own_mesh(run: Run) -> None:
    """Refuse -mesh and say that -dim is fixed, for a benchmark that has its own geometry."""
    if run["mesh"] is not None:
        raise InvalidInput("-mesh", run["mesh"], f"no mesh with -case {run['case']}")
    if "dim" in run.given:
        run.say(f"heat: -dim has no meaning for -case {run['case']} and is ignored")


CASES = {"heat_sink": heat_sink, "box": box, "nafems_t3": nafems_t3, "nafems_t4": nafems_t4}


def largest(comm: MPI.Comm, T: fem.Function) -> float:
    """Return the largest nodal value. Collective."""
    owned = T.x.array[: T.function_space.dofmap.index_map.size_local]
    return float(comm.allreduce(float(owned.max(initial=-np.inf)), MPI.MAX))


def solve(run: Run) -> None:
    """Run the case, write fields and answers."""
    case = CASES[run["case"]](run)
    T = fem.Function(case.body.space, name="temperature")
    T.interpolate(case.initial)
    run.describe(case.title, case=run["case"], degree=run["degree"], **case.parameters)
    times, maxima = [0.0], [largest(run.comm, T)]
    if case.t_end == 0.0:
        steady(run, case, T)
    else:
        transient(run, case, T, times, maxima)
    case.finish(run, T, times[-1])
    run.draw(lambda path: case.draw(run, T, path, picture.Curve(times, maxima)), case.title)


def steady(run: Run, case: Case, T: fem.Function) -> None:
    """Solve K T = F once. Collective."""
    if run.given & {"dt", "t_end", "scheme", "theta"}:
        run.say(f"heat: -case {run['case']} is steady; -dt, -t_end, -scheme and -theta are ignored")
    parts, u = case.body.parts, T.x.petsc_vec
    system = parts.system(lambda A: run.system(A, T.function_space), 0.0, 1.0)
    parts.solve(system, case.body.load().copy(), u, 0.0, 0.0, 1.0)
    T.x.scatter_forward()
    with run.writer([T]) as writer:
        writer.write(0.0)


def transient(run: Run, case: Case, T: fem.Function, times: list[float], maxima: list[float]) -> None:
    """Step from t = 0 to the end; append times (s) and largest temperatures (°C). Collective."""
    t_end = run["t_end"] or case.t_end
    steps = run.count_steps(t_end, run["dt"] or case.dt)
    dt = t_end / steps
    theta = run["scheme"] == "theta" or ("theta" in run.given and "scheme" not in run.given)
    name = f"theta {run['theta']:g}" if theta else "bdf2"
    run.describe(case.title, scheme=name, **{"dt s": dt, "t_end s": t_end, "steps": steps})
    parts, u, space = case.body.parts, T.x.petsc_vec, T.function_space
    scheme: Scheme
    if theta:
        scheme = Theta(parts, dt, run["theta"], lambda A: run.system(A, space))
    else:
        scheme = BackwardDifference(parts, dt, lambda A: run.system(A, space))
    balance = EnergyBalance(case.body, T, run["theta"] if theta else 0.5)
    shots = run.snapshot_steps(steps)
    with run.writer([T]) as writer, run.progress(steps, run["case"]) as progress:
        writer.write(0.0)
        for step in range(steps):
            scheme.advance(u, step * dt)
            T.x.scatter_forward()
            balance.step(dt)
            times.append((step + 1) * dt)
            maxima.append(largest(run.comm, T))
            if step + 1 in shots:
                writer.write(times[-1])
            progress.step(f"t {times[-1]:.4g} s  max {maxima[-1]:.2f} °C")
    if case.body.power > 0:
        run.answer("energy imbalance, relative", balance.imbalance())


SCRIPT = Script("heat", __doc__, OPTIONS, solve)
main = SCRIPT.main

if __name__ == "__main__":
    sys.exit(main())

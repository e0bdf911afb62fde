"""What a run on the sphere is to do: case, mesh and time steps by its options, and the checkpoint it begins with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analogpde.errors import InvalidInput
from analogpde.fem import checkpoint, latlon, multistep, sphere_cases
from analogpde.fem.arguments import on_root
from analogpde.fem.run import Run
from analogpde.fem.sphere import smallest_height
from analogpde.fem.sphere_cases import DAY, RADIUS, Case

CHECKPOINT = "checkpoint.npz"
CLOSURE = ("upwind", "closure", "viscosity")
"""Options that a run cannot change on its way."""


@dataclass(frozen=True)
class Plan:
    """What to run.

    Args:
        case: the initial state.
        name, rotation: what of `sphere_cases.case` it is.
        initial: absolute path of the user's file that it is instead, or None.
        level, degree: of the mesh and the elements.
        dt: time step in s.
        steps: of the whole run.
        first: steps that a checkpoint has done already.
        fields: checkpoint with the initial state, or None.
        meta: what belongs to that checkpoint.
    """

    case: Case
    name: str
    rotation: float
    initial: str | None
    level: int
    degree: int
    dt: float
    steps: int
    first: int
    fields: Path | None
    meta: dict[str, Any]


def plan(run: Run) -> Plan:
    """Return what the options ask for. Collective.

    Raises:
        InvalidInput: they contradict each other, a checkpoint, or a sphere.
    """
    if "days" in run.given and "t_end" in run.given:
        raise InvalidInput("-t_end", run["t_end"], "either -days or -t_end")
    for option in ("restart", "checkpoint", "animation"):
        if run[option] not in (False, "none") and run.folder is None:
            raise InvalidInput(f"-{option}", f"{run[option]} with -out none", "a folder for its files",
                               "Give -out FOLDER.")
    on_root(run.comm, lambda: latlon.check_animation(run["animation"]))
    level = chosen_level(run)
    fields, meta = _stored(run)
    initial = run["initial"] if fields is None or (run["restart"] and run["initial"]) else meta["initial"]
    name, rotation = (run["case"], run["rotation"]) if fields is None else (meta["case"], meta["rotation"])
    if fields is not None:
        for option, value in (("level", meta["level"]), ("degree", meta["degree"]), ("case", name),
                              ("rotation", rotation)):
            if option in run.given and run[option] != value:
                raise InvalidInput(f"-{option}", run[option], f"{value}, as in {fields}")
        level = meta["level"]
    degree = meta["degree"] if fields is not None else run["degree"]
    if rotation and (name != "tc2" or initial):
        raise InvalidInput("-rotation", rotation, "0 but in case tc2")
    if initial and "case" in run.given and fields is None:
        raise InvalidInput("-case", run["case"], "either -case or -initial")
    if initial and meta.get("initial_hash", "") not in ("", found := checkpoint.digest(run.comm, Path(initial))):
        raise InvalidInput("-restart" if run["restart"] else "-initial",
                           f"{initial}, which {'has changed' if found else 'cannot be read'}",
                           "the file as it was when the checkpoint was written",
                           "The ground and the rotation are read from it. Give its path with -initial if it has moved.")
    case = sphere_cases.from_file(Path(initial)) if initial else sphere_cases.case(name, rotation)
    t_end = meta["t_end"] if run["restart"] else case.days * DAY
    if "t_end" in run.given:
        t_end = run["t_end"]
    elif run["days"] is not None:
        t_end = run["days"] * DAY
    if run["restart"]:
        dt = meta["dt"]
        steps, wanted = math.ceil(t_end / dt - 1e-9), run["dt"]
        # of two runs of different length, -dt 1800 may be shortened to fit in different ways
        if wanted is not None and not 0.5 * wanted < dt <= wanted * (1 + 1e-12):
            raise InvalidInput("-dt", wanted, f"{dt:g} s, as in the checkpoint")
        for option in CLOSURE:
            if option in run.given and run[option] != meta[option]:
                raise InvalidInput(f"-{option}", run[option], f"{meta[option]}, as in the checkpoint")
        if steps < meta["step"]:
            raise InvalidInput("-days", t_end / DAY, f"at least {meta['step'] * dt / DAY:g}, where the checkpoint is")
        if not math.isclose(steps * dt, t_end, rel_tol=1e-9):
            run.say(f"{t_end / DAY:g} days are no multiple of the checkpoint's dt, {dt:g} s: {steps * dt / DAY:.9g} "
                    f"days, {steps} steps, are simulated.")
        if changed := checkpoint.other_solves(meta, run.comm.size, run.log.options):
            run.say(f"The run goes on with other solves than it began with ({', '.join(changed)}): it is right to "
                    "their accuracy, not bit for bit.")
    elif run["dt"] is None:
        dt = multistep.default_step(case.speed, RADIUS * smallest_height(level), degree, t_end,
                                    case.inertial_frequency())
        steps = round(t_end / dt)
    else:
        steps = run.count_steps(t_end, run["dt"])
        dt = t_end / steps
    if (turn := case.inertial_frequency() * dt) > multistep.STABLE:
        run.say(f"shallow_water: the Coriolis parameter times -dt is {turn:.3g}, inertial waves may grow above "
                f"{multistep.STABLE}. Take a smaller -dt than {dt:g} s.")
    if run["reference"] is not None:
        _check_reference(run, {"case": name, "rotation": rotation, "initial hash": checkpoint.digest(
            run.comm, Path(initial)) if initial else ""}, level, degree, steps * dt)
    return Plan(case, name, rotation, str(Path(initial).resolve()) if initial else None, level, degree, dt, steps,
                meta["step"] if run["restart"] else 0, fields, meta)


def chosen_level(run: Run) -> int:
    """Return the level of the mesh, by -level or by -n.

    Raises:
        InvalidInput: -n is no power of two, or contradicts -level.
    """
    level, n = run["level"], run["n"]
    if n is None:
        return int(level)
    if n & (n - 1):
        raise InvalidInput("-n", n, "a power of two", f"Take {2 ** (n.bit_length() - 1)} or {2 ** n.bit_length()}.")
    if "level" in run.given and n != 2**level:
        raise InvalidInput("-n", n, f"{2**level} with -level {level}", "Give one of the two.")
    return int(n.bit_length() - 1)


def _check_reference(run: Run, what: dict[str, Any], level: int, degree: int, end: float) -> None:
    """Raise if -reference is no checkpoint of `what` at `end` (s) on this mesh or a finer one. Collective."""
    path = Path(run["reference"])
    meta = checkpoint.read_meta(run.comm, path)
    for name, ours in what.items():
        if ours != (theirs := meta[name.replace(" ", "_")]):
            raise InvalidInput("-reference", f"{path}, with {name} {theirs!r}", f"{name} {ours!r}, as this run has")
    if meta["level"] < level or meta["degree"] < degree:
        raise InvalidInput("-reference", f"{path}, of level {meta['level']} and degree {meta['degree']}",
                           f"level {level} and degree {degree} or more, so that it has the nodes of this run")
    if not math.isclose(meta["time"], end, rel_tol=1e-9):
        raise InvalidInput("-reference", f"{path}, at day {meta['time'] / DAY:.9g}",
                           f"day {end / DAY:.9g}, where this run ends", f"Give -days {meta['time'] / DAY:.9g}.")


def _stored(run: Run) -> tuple[Path | None, dict[str, Any]]:
    """Return path and contents of the checkpoint to begin with, if there is one. Collective."""
    if run["restart"]:
        assert run.folder is not None
        path = run.folder / CHECKPOINT
        meta = checkpoint.read_meta(run.comm, path)
        if run["initial"] is not None and not meta["initial"]:
            raise InvalidInput("-initial", run["initial"], "nothing beside -restart: that run began with a case")
        return path, meta
    if run["initial"] is not None and Path(run["initial"]).suffix == ".npz":
        path = Path(run["initial"])
        return path, checkpoint.read_meta(run.comm, path)
    return None, {}

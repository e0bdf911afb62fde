"""Read our options from PETSc's database; print them for -help; refuse mistyped ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from analogpde.chip import Chip, load
from analogpde.chip.chip import OVERRIDES
from analogpde.errors import InvalidInput, cause, did_you_mean
from analogpde.manual import default_text
from analogpde.options import CHIP_OPTIONS, TABLE, Option, check_names
from analogpde.petsc.guard import say
from analogpde.petsc.stack import PETSc

UNKNOWN_TYPE = 86
"""PETSC_ERR_UNKNOWN_TYPE of petscerror.h."""


def read(options: Iterable[Option], prefix: str, *, inherit: bool = False) -> dict[str, Any]:
    """Return the values of `options` by name.

    Args:
        options: entries of the table.
        prefix: options prefix of the solver.
        inherit: whether the unprefixed option counts where the prefixed one is absent.

    Raises:
        InvalidInput: a value out of range.
    """
    database = PETSc.Options()
    values = {}
    for option in options:
        values[option.name] = option.default
        for name in dict.fromkeys((prefix + option.name, option.name) if inherit else (prefix + option.name,)):
            if database.hasName(name):
                values[option.name] = option.parse(database.getString(name, ""), written=name)
                break
    return values


def given(names: Iterable[str], prefix: str) -> bool:
    """Tell whether any of the options was set by the user under this prefix."""
    database = PETSc.Options()
    return any(database.hasName(prefix + name) for name in names)


def guard_names() -> None:
    """Refuse a mistyped option of ours anywhere in the database."""
    check_names(PETSc.Options().getAll())


def read_chip(prefix: str) -> tuple[Chip, int]:
    """Return the chip that the options describe, and the seed. Unprefixed options hold for every solver.

    Raises:
        InvalidInput, AnalogError: an unknown chip, a bad file or a value out of range.
    """
    values = read(CHIP_OPTIONS, prefix, inherit=True)
    chip = load(values["analog_chip"])
    database = PETSc.Options()
    overrides = {name: values[f"analog_{name}"] for name in OVERRIDES
                 if any(database.hasName(p + f"analog_{name}") for p in {prefix, ""})}
    return (chip.replace(**overrides) if overrides else chip), values["analog_seed"]


def read_tiles(prefix: str) -> int | None:
    """Return how many tiles a rank's chip has, None for no limit.

    Raises:
        InvalidInput: fewer than one.
    """
    name = "analog_tiles_per_rank"
    tiles: int | None = read((TABLE[name],), prefix, inherit=True)[name]
    return tiles


def help_text(title: str, options: Iterable[Option], prefix: str, now: dict[str, Any]) -> str:
    """Return what -help prints for a group, in PETSc's layout."""
    lines = ["-" * 40, f"{title} options:"]
    for option in options:
        usual = default_text(option, title)
        value = now.get(option.name)
        lines.append(f"  -{prefix}{option.name}: <now {usual if value is None else value} : formerly {usual}>: "
                     f"{option.help} ({option.allowed})")
    return "\n".join(lines) + "\n"


def unknown_type(options: Mapping[str, str | None]) -> InvalidInput:
    """Return the error for a solver or preconditioner that PETSc does not know.

    Args:
        options: those in use.
    """
    types = {name: text for name, text in options.items() if name.endswith(("ksp_type", "pc_type")) and text}
    known = ("analog", "cg", "gmres", "fgmres", "fcg", "bcgs", "minres", "preonly", "richardson", "gamg", "lu",
             "cholesky", "jacobi", "bjacobi", "asm", "ilu", "icc", "sor", "fieldsplit", "mg", "none")
    near = [did_you_mean(text, known) for text in types.values() if text and text not in known]
    return InvalidInput(
        "solver or preconditioner", " ".join(f"-{name} {text}" for name, text in types.items()),
        "types that this PETSc has, such as -ksp_type analog, cg, gmres, -pc_type analog, gamg, lu, jacobi",
        " ".join(filter(None, near)))


def read_multigrid(cycle: PETSc.PC, prefix: str) -> None:
    """Let PETSc's multigrid read its options and set it up; say which of them nobody asked for. Collective.

    Args:
        cycle: with its levels in place. prefix: of its options, `pc_analog_` included.

    Raises:
        InvalidInput: PETSc refuses one of them.
    """
    names = {name: text for name, text in PETSc.Options().getAll().items()
             if name.startswith((f"{prefix}mg_", f"{prefix}pc_mg_"))}
    try:
        if not wants_help():  # or it would list everything that PETSc knows of a multigrid
            cycle.setFromOptions()
        cycle.setUp()
    except PETSc.Error as error:
        if not names or cause(error) is not None:
            raise
        said = next((line for line in str(error).splitlines()[::-1] if "() at" not in line), "")
        raise InvalidInput(
            "options of the multigrid", " ".join(f"-{name} {text or ''}".strip() for name, text in names.items()),
            "what PETSc's PCMG and the KSPs and PCs in it read", f"PETSc: {said.partition('] ')[2] or said}. How many "
            f"levels there are is the tiles' matter (-{prefix}levels); types: -{prefix}pc_mg_type multiplicative | "
            f"additive | full | kaskade, cycles: -{prefix}pc_mg_cycle_type v | w, smoothing steps: "
            f"-{prefix}mg_levels_ksp_max_it.") from error
    unread = [f"-{name}" for name in names if not PETSc.Options().used(name)]
    if unread and not wants_help():
        say(cycle.getComm().tompi4py(), f"analogpde: {', '.join(unread)}: read by nobody. This multigrid has "
            f"{cycle.getMGLevels()} levels: -{prefix}mg_coarse_… is the coarsest, -{prefix}mg_levels_… are the others "
            f"(-{prefix}mg_levels_1_… the next to it), -{prefix}pc_mg_cycle_type v | w is of the cycle.")


def wants_help() -> bool:
    """Tell whether -help was given."""
    return bool(PETSc.Options().hasName("help"))

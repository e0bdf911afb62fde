"""The command line of the problem scripts: single-dash options beside PETSc's own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mpi4py import MPI

from analogpde.errors import AnalogError, InvalidInput, did_you_mean
from analogpde.options import GROUPS, Option

COMMON = {
    option.name: option
    for option in (
        Option("n", "int", 32, "Cells per side.", low=1, high=100_000),
        Option("dim", "choice", "2", "Dimension of the domain.", choices=("2", "3")),
        Option("mesh", "text", None, "Mesh to use instead of the built-in one: an XDMF file."),
        Option("degree", "int", 1, "Polynomial degree of the Lagrange elements.", low=1, high=3),
        Option("dt", "real", None, "Time step in seconds.", low=0.0, open_low=True),
        Option("t_end", "real", None, "Simulated time in seconds.", low=0.0, open_low=True),
        Option("out", "text", None, "Folder for report, fields and picture (default results/<problem>); none: write "
               "nothing."),
        Option("snapshots", "int", 10, "Times at which the fields are written; 0: none.", low=0, high=100_000),
        Option("picture", "flag", True, "Draw a PNG picture of the result."),
        Option("verify", "flag", False, "Solve also with an FP64 direct solver and with native FP32, and print the "
               "three errors side by side."),
        Option("help", "flag", False, "Print this and stop."),
    )
}
"""The options that every problem script understands, with the defaults of most."""

ELSEWHERE = frozenset(
    "ambient animation box case charge checkpoint closure convection correlation days displacement equations frames "
    "grade initial level method mode omega panels power quadrant reference refine resolution restart rotation scheme "
    "seed shift sigma states theta upwind viscosity zeta".split())
"""Options of single scripts: another one would leave them to PETSc, and start a run over that was to be restarted."""

_OPTION = re.compile(r"^-(?P<name>[A-Za-z_].*)$")
_PREFIXED = re.compile(r"^(?P<prefix>[A-Za-z]+_)(?P<rest>(?:ksp|pc|analog)_.+)$")
_FLAG_WORDS = ("true", "false", "yes", "no", "on", "off", "1", "0")


def table(own: Sequence[Option], defaults: Mapping[str, Any]) -> dict[str, Option]:
    """Return the options of one script by name.

    Args:
        own: options of this script alone.
        defaults: defaults of common options that differ here.
    """
    common = {name: replace(option, default=defaults.get(name, option.default)) for name, option in COMMON.items()}
    return common | {option.name: option for option in own}


def parse(argv: Sequence[str], known: Mapping[str, Option]) -> tuple[dict[str, Any], dict[str, str | None], set[str]]:
    """Split a command line into this script's values and PETSc's options.

    Args:
        argv: the words after the script's name.
        known: the script's options.

    Returns:
        The value of every known option; the options left for PETSc with their text (None if bare);
        the names of the known options that were given.

    Raises:
        InvalidInput: a bad value, a word that belongs to no option, or an option that looks like a
            misspelt one of ours.
    """
    values = {name: option.default for name, option in known.items()}
    rest: dict[str, str | None] = {}
    given: set[str] = set()
    words = list(argv)
    while words:
        word = words.pop(0)
        match = _OPTION.match(word)
        if match is None:
            remedy = f"Write {word[1:]}." if word.startswith("--") else "Did you forget the option's name before it?"
            raise InvalidInput("command line", word, "options of the form -name value", remedy)
        name = match["name"]
        option = known.get(name)
        follows = words[0] if words and _OPTION.match(words[0]) is None else None
        if option is None:
            if name in ELSEWHERE:
                raise InvalidInput("unknown option", f"-{name}", "those that -help lists",
                                   "It belongs to another problem's script.")
            _refuse_misspelt(name, known)
            rest[name] = words.pop(0) if follows is not None else None
            continue
        given.add(name)
        if option.kind == "flag":
            takes = follows is not None and follows.lower() in _FLAG_WORDS
            values[name] = option.parse(words.pop(0) if takes else "")
        elif follows is None:
            raise InvalidInput(word, "no value", option.allowed)
        else:
            values[name] = option.parse(words.pop(0))
    values["dim"] = int(values["dim"])
    return values, rest, given


def _refuse_misspelt(name: str, known: Mapping[str, Option]) -> None:
    """Raise if `name`, which is not ours, is one slip away from a longer name that is."""
    if len(name) <= 3:  # PETSc has no such short options but -h, -v and -i…
        near = did_you_mean(name.lower(), [candidate for candidate in known if len(candidate) <= 3])
        if near:
            raise InvalidInput("unknown option", f"-{name}", "those that -help lists", near.replace("mean ", "mean -"))
    near = did_you_mean(name, [candidate for candidate in known if len(candidate) > 2])
    if not near:
        return
    candidate = near.removeprefix("Did you mean ").removesuffix("?")
    # PETSc has thousands of options: only a word of nearly the same length is taken for ours.
    if abs(len(candidate) - len(name)) <= 1 and candidate[0] == name[0]:
        raise InvalidInput("unknown option", f"-{name}", "those that -help lists", f"Did you mean -{candidate}?")


def check_prefixes(names: Iterable[str], prefixes: Sequence[str]) -> None:
    """Refuse a solver's option whose prefix is one slip away from one of the script's.

    Args:
        names: options left for PETSc, without the dash.
        prefixes: of the script's systems.

    Raises:
        InvalidInput: with the option that was meant.
    """
    for name in names:
        match = _PREFIXED.match(name)
        if match is None or match["prefix"] in prefixes:
            continue
        # PETSc has prefixes of its own (mg_levels_, sub_): none is so much like one of ours
        stems = [prefix.rstrip("_") for prefix in prefixes]
        near = did_you_mean(match["prefix"].rstrip("_").lower(), stems, likeness=0.75)
        if near:
            meant = near.removeprefix("Did you mean ").removesuffix("?")
            raise InvalidInput("unknown option", f"-{name}", f"the prefixes {', '.join(prefixes)} or none",
                               f"Did you mean -{meant}_{match['rest']}?")


def help_text(script: str, purpose: str, known: Mapping[str, Option]) -> str:
    """Return the page that -help prints."""
    lines = [purpose.strip(), "", f"mpirun -n P python problems/{script}.py [options] [any PETSc option]", ""]
    groups = ((f"{script}.py", tuple(known.values())), *GROUPS)
    for title, options in groups:
        lines.append(title)
        for option in options:
            default = "" if option.default in (None, False) else f" [{str(option.default).lower()}]"
            value = "" if option.kind == "flag" else f" <{option.allowed}>"
            lines.append(f"  -{option.name}{value}{default}")
            lines.append(f"      {option.help}")
        lines.append("")
    lines.append("Without -ksp_type the solves are analog; -ksp_type cg -pc_type gamg makes them digital.")
    return "\n".join(lines)


def _parts(problem: InvalidInput) -> tuple[str, object, str, str]:
    """Return a refusal in parts: an exception whose constructor takes more than a message cannot be pickled."""
    return problem.what, problem.got, str(problem).partition("; allowed: ")[2].removesuffix("."), ""


def on_all[Value](comm: MPI.Comm, action: Callable[[], Value]) -> Value:
    """Run `action`, which must not communicate; what it refuses on any rank is refused on every one. Collective."""
    value: Value | None = None
    refused: tuple[str, object, str, str] | None = None
    try:
        value = action()
    except InvalidInput as problem:
        refused = _parts(problem)
    for found in comm.allgather(refused):
        if found is not None:
            raise InvalidInput(*found)
    return cast("Value", value)


def on_root[Value](comm: MPI.Comm, action: Callable[[], Value]) -> Value:
    """Run `action` on rank 0 and return its value, or raise its error, on every rank. Collective."""
    value: Value | None = None
    refused: tuple[str, object, str, str] | None = None
    broken: tuple[type[Exception], str] | None = None
    if comm.rank == 0:
        try:
            value = action()
        except InvalidInput as problem:
            refused = _parts(problem)
        except Exception as problem:
            known = isinstance(problem, AnalogError)
            broken = (AnalogError, str(problem)) if known else (RuntimeError, f"{type(problem).__name__}: {problem}")
    value, refused, broken = comm.bcast((value, refused, broken))
    if refused is not None:
        raise InvalidInput(*refused)
    if broken is not None:
        raise broken[0](broken[1])
    return cast("Value", value)


def prepare_folder(comm: MPI.Comm, folder: Path) -> Path:
    """Make `folder` and check that files can be made in it. Collective.

    Raises:
        InvalidInput: on every rank, if it cannot be written.
    """

    def prepare() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as problem:
            raise InvalidInput("-out", str(folder), "a folder that can be written", f"{problem.strerror}.") from None

    on_root(comm, prepare)
    return folder

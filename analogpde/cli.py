"""The command line: `python -m analogpde script.py …` and the commands run, chips, doctor, options, report."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from analogpde import __version__
from analogpde.errors import AnalogError, did_you_mean

COMMANDS = ("run", "chips", "doctor", "options", "report")
DESCRIPTION = """\
Run a PETSc or DOLFINx program with -ksp_type analog available, or ask analogpde something.

  python -m analogpde script.py [arguments] [PETSc options]
  python -m analogpde -m module [arguments] [PETSc options]
  mpirun -n 4 python -m analogpde script.py -ksp_type analog -ksp_monitor
"""


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command line.

    Args:
        arguments: the words after the program's name; None means those of this process.

    Returns:
        The exit code: 0 done, 1 the answer is no or an error was reported, 2 a command that was not understood.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    if not words:
        parser.print_help()
        return 2
    if words[0] == "run":
        words = words[1:]
        if not words or words[0] in ("-h", "--help"):
            print("usage: analogpde run [-m module | script.py] [arguments] [PETSc options]")
            return 0 if words else 2
        return run(words)
    if words[0] in ("-m", "-c") or (words[0] not in COMMANDS and not words[0].startswith("-")):
        return run(words)
    try:
        return int(dispatch(parser.parse_args(words)))
    except AnalogError as error:
        return complain(error)
    except BrokenPipeError:  # `analogpde options | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of everything but scripts, whose arguments are not ours to read."""
    parser = argparse.ArgumentParser(
        prog="analogpde", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"analogpde {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("run", help="run a script or module (the word may be left out)")
    chips = commands.add_parser("chips", help="list the chip presets, or describe one")
    chips.add_argument("name", nargs="?", metavar="NAME", help="a preset, or a JSON file that describes a chip")
    chips.add_argument("--json", action="store_true", help="print the chip as JSON: a start for a chip of your own")
    commands.add_parser("doctor", help="say what is installed, what is missing, and what to do about it")
    commands.add_parser("options", help="print every option of the solver, the preconditioner and the chip")
    report = commands.add_parser("report", help="show a JSON convergence report as text, or write it as HTML or text")
    report.add_argument("file", metavar="FILE.json")
    report.add_argument("-o", "--output", metavar="FILE", help="write to FILE.html, FILE.txt or FILE.json instead")
    return parser


def dispatch(request: argparse.Namespace) -> int:
    """Carry out a command that the parser has understood."""
    if request.command == "chips":
        return chips(request.name, request.json)
    if request.command == "report":
        return report(request.file, request.output)
    if request.command == "doctor":
        from analogpde.doctor import doctor

        return doctor()
    from analogpde.manual import as_text

    print(as_text(), end="")
    return 0


def run(words: list[str]) -> int:
    """Run a script under PETSc; Collective.

    Args:
        words: `[-m module | script.py]` and what follows it.
    """
    if words[0] not in ("-m", "-c") and not Path(words[0]).exists():
        near = did_you_mean(words[0], COMMANDS)
        print(f"analogpde: {words[0]!r} is neither a file nor a command ({', '.join(COMMANDS)}). {near}".rstrip(),
              file=sys.stderr)
        return 2
    from analogpde.launch import launch

    launch(words)
    return 0


def chips(name: str | None, as_json: bool) -> int:
    """List the presets, or describe the chip `name`.

    Args:
        name: a preset, a JSON file, or None for the list.
        as_json: print what `-analog_chip FILE.json` reads.
    """
    from analogpde.chip import presets

    if name is not None:
        chip = presets.load(name)
        print(chip.to_json() if as_json else chip.describe() + "\n", end="")
        return 0
    if as_json:
        print("analogpde: chips --json wants the NAME of a chip", file=sys.stderr)
        return 2
    for chip in presets.PRESETS.values():
        print(f"{chip.summary()}\n    {chip.title}")
    print("\nOne of them with all its sources: analogpde chips NAME. To use it: -analog_chip NAME.")
    return 0


def report(file: str, output: str | None) -> int:
    """Show the report in `file`, or write it to `output` in the format of its suffix."""
    import analogpde.report as reports

    try:
        content = reports.read(Path(file))
        if output is None:
            print(reports.to_text(content), end="")
        else:
            reports.write(content, Path(output))
            print(f"analogpde: wrote {output}")
    except OSError as error:
        return complain(error)
    return 0


def complain(error: Exception) -> int:
    """Print an expected error on one line, without a traceback."""
    print(f"analogpde: {error}", file=sys.stderr)
    return 1

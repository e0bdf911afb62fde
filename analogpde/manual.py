"""The option table in words: plain text for the terminal, Markdown for the documentation."""

from __future__ import annotations

import textwrap

from analogpde.chip import PRESETS
from analogpde.chip.chip import as_words, fields_of_chips
from analogpde.options import GROUPS, Option

ESCAPED = "\\|"  # a bar inside a table
_AUTOMATIC = {"The emulated chip": "the chip's", "Convergence report": "none"}
_ABSENT = {"analog_tiles_per_rank": "unlimited"}  # where an option differs from the others of its group


def default_text(option: Option, group: str) -> str:
    """Return the default of `option` as the user would type it, or in words where there is no such text.

    Args:
        option: an entry of the table.
        group: title of its group; it says what an absent value means.
    """
    if option.default is None:
        return _ABSENT.get(option.name) or _AUTOMATIC.get(group, "automatic")
    if isinstance(option.default, bool):
        return str(option.default).lower()
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def as_text(width: int = 100) -> str:
    """Return every option, one paragraph each, for the terminal.

    Args:
        width: columns of the terminal.
    """
    lines = []
    for title, group in GROUPS:
        lines += [title, ""]
        for option in group:
            lines.append(f"  -{option.name} <{option.allowed}> (default: {default_text(option, title)})")
            lines += textwrap.wrap(option.help, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
        lines.append("")
    lines += textwrap.wrap(
        "Options of the KSP and the PC take the solver's prefix: with the prefix `flow_`, "
        "-flow_ksp_analog_residual_bits 30. Options of the chip hold for every solver; with a prefix, for that one.",
        width,
    )
    return "\n".join(lines) + "\n"


def as_markdown() -> str:
    """Return the page `docs/options.md`."""
    lines = [
        "# Options",
        "",
        "<!-- Written by scripts/make_docs.py from analogpde/options.py: change the table there, then run it. -->",
        "",
        "Every option of `-ksp_type analog`, `-pc_type analog` and the emulated chip, beside PETSc's own "
        "(`-ksp_rtol`, `-ksp_max_it`, `-ksp_monitor`, `-ksp_view`, …), which are obeyed as by any KSP and PC. "
        "The same list: `python -m analogpde options`, or `-help` on a program's command line.",
        "",
        "Options of the KSP and the PC take the solver's prefix: with the prefix `flow_`, "
        "`-flow_ksp_analog_residual_bits 30`. Options of the chip hold for every solver; with a prefix, for that one. "
        "The value `none` stands for the ideal: no such error, or infinitely many bits. "
        "A mistyped name is refused with the nearest one that exists; of PETSc's own below `-pc_analog_mg_` and "
        "`-pc_analog_pc_mg_`, those that no solver reads are named on the terminal.",
    ]
    for title, group in GROUPS:
        lines += ["", f"## {title}", "", "| option | allowed | default | what it does |", "| --- | --- | --- | --- |"]
        for option in group:
            cells = (f"`-{option.name}`", option.allowed, default_text(option, title), option.help)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def chips_as_markdown() -> str:
    """Return the page on the preset chips: every value with its source and confidence."""
    lines = [
        "# Chips", "",
        "Made by `scripts/make_docs.py` from `analogpde/chip/presets.py`; do not edit.", "",
        "`-analog_chip NAME` takes a preset, `-analog_chip FILE.json` a chip of your own: "
        "`python -m analogpde chips NAME --json > mine.json`, edit, done. Single values are overridden by "
        "[options](options.md) such as `-analog_cell_bits`. *published*: read in the named source; *second-hand*: in a "
        "summary of it; *assumed*: this project's plausible choice, where nothing was published.", "",
    ]
    lines += ["## Fields", "", "| field | unit | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, (meaning, unit, allowed) in fields_of_chips().items():
        lines.append(f"| `{name}` | {unit} | {allowed.replace('|', ESCAPED)} | {meaning} |")
    lines.append("")
    for chip in PRESETS.values():
        lines += [f"## {chip.name}", "", chip.title, ""]
        lines += ["| value | | source | confidence |", "| --- | --- | --- | --- |"]
        ideal = []
        for name, value in chip.values().items():
            source = chip.sources.get(name)
            if value is None or source is None:
                ideal.append(f"`{name}`")
                continue
            lines.append(f"| `{name}` | {as_words(value)} | {source.text} | {source.confidence} |")
        lines += ["", f"Ideal: {', '.join(ideal)}.", ""]
    return "\n".join(lines)

"""Every option of analogpde, in one table: the parser, -help, the docs page and the typo guard read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from analogpde.chip.chip import OVERRIDES, fields_of_chips
from analogpde.chip.error_models import MODELS
from analogpde.errors import InvalidInput, did_you_mean

Kind = Literal["int", "real", "choice", "flag", "text"]


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: as typed, without the dash and without an options prefix.
        kind: how the text is read.
        default: the value when the option is absent; None means 'as the chip or the context says'.
        help: one sentence.
        low, high: inclusive bounds of an int or real.
        choices: allowed words of a choice.
        ideal: whether the word `none` (no such error, infinitely many bits) is allowed.
        open_low: whether `low` itself is excluded.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    ideal: bool = False
    open_low: bool = False

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.kind == "choice":
            words = " | ".join(self.choices)
        elif self.kind in ("int", "real"):
            noun = "an integer" if self.kind == "int" else "a number"
            lower = f"{'greater than' if self.open_low else 'from'} {self.low:g}" if self.low is not None else ""
            up = "up" if self.low is not None and not self.open_low else ""
            upper = f"to {self.high:g}" if self.high is not None else up
            words = " ".join(part for part in (noun, lower, upper) if part)
        elif self.kind == "flag":
            words = "true | false"
        else:
            words = "text"
        return f"{words} | none (ideal)" if self.ideal else words

    def parse(self, text: str, *, written: str | None = None) -> Any:
        """Return the value of `text`.

        Args:
            text: what the user typed after the option.
            written: the option as typed, with its prefix (for the message).

        Raises:
            InvalidInput: the text is not one of the allowed values.
        """
        name = f"-{written or self.name}"
        word = text.strip()
        if self.ideal and word.lower() == "none":
            return None
        if self.kind == "flag":
            if word.lower() in ("", "1", "true", "yes", "on"):
                return True
            if word.lower() in ("0", "false", "no", "off"):
                return False
            raise InvalidInput(name, text, self.allowed)
        if self.kind == "choice":
            if word in self.choices:
                return word
            raise InvalidInput(name, text, self.allowed, did_you_mean(word, self.choices))
        if self.kind == "text":
            if not word:
                raise InvalidInput(name, text, "a non-empty text")
            return word
        try:
            value: float = int(word) if self.kind == "int" else float(word)
        except ValueError:
            raise InvalidInput(name, text, self.allowed) from None
        below = self.low is not None and (value < self.low or (self.open_low and value == self.low))
        if value != value or below or (self.high is not None and value > self.high):
            remedy = "Write `none` for an ideal one." if self.ideal and value <= 0 else ""
            raise InvalidInput(name, text, self.allowed, remedy)
        return value


KSP_OPTIONS = (
    Option("ksp_analog_residual", "choice", "digital", "How the residual is formed: in FP64 on the host, or by the "
           "bit-sliced fixed-point multiplier (HP-MVM).", choices=("digital", "sliced")),
    Option("ksp_analog_residual_bits", "int", 24, "Fixed-point bits of matrix and vector in the sliced residual, "
           "in slices of 3.", low=3, high=54),
    Option("ksp_analog_residual_progressive", "flag", False, "Sliced residual: each from no more slices than it needs, "
           "few while it is large. The accelerator is then fgmres or none."),
    Option("ksp_analog_accelerator", "choice", "auto", "none: plain refinement, the chip paper's HP-INV; fcg: flexible "
           "conjugate gradients (symmetric definite A); fgmres: flexible residual minimisation; auto: fcg if A is "
           "symmetric, else fgmres.", choices=("auto", "none", "fgmres", "fcg")),
    Option("ksp_analog_restart", "int", 30, "Directions that the accelerator keeps.", low=1),
    Option("ksp_analog_stagnation", "int", 30, "Outer iterations without a residual below 0.9 times the smallest after "
           "which the solve is refused as stagnated; four times as many while conjugate gradients lower the error's "
           "energy.", low=2),
)
PC_OPTIONS = (
    Option("pc_analog_levels", "int", 10, "Largest number of levels; 1 is one-level Schwarz.", low=1),
    Option("pc_analog_core", "int", None, "Unknowns of a patch core (default: about half a tile in 2-D, a third "
           "in 3-D; 20 where convection rules, anisotropy is hidden by the mesh, or 2-D coefficients jump from node to "
           "node).", low=1),
    Option("pc_analog_overlap", "int", 2, "Layers by which a patch reaches beyond its core, while it fits the tile.",
           low=0),
    Option("pc_analog_strength", "real", None, "Cores and patches grow along couplings above this fraction of the "
           "largest of either row (default 0.25).", low=0.0, high=1.0),
    Option("pc_analog_truncation", "real", None, "Entries of the prolongation below this fraction of the row's largest "
           "are dropped, near-null vectors kept (default 0.1 in 2-D, 0.15 in 3-D and for small tiles; in 3-D with "
           "several near-null vectors 0.25).", low=0.0, high=0.9),
    Option("pc_analog_shift", "real", 0.5, "Stability shift, in units of programming error times the root of the "
           "cells in a row.", low=0.0),
    Option("pc_analog_slices", "int", None, "Parallel cell slices in the closed loop of a fine-level tile (default: 2 "
           "where rounding to one would take more than 5 % of the diagonal, else 1).", low=1, high=8),
    Option("pc_analog_coarse_slices", "int", 2, "The same on coarse levels.", low=1, high=8),
    Option("pc_analog_coarse", "choice", "auto", "How a last level larger than a tile is solved. blockamc: on tiles by "
           "block elimination, up to 4 times a tile; digital: LU on every rank; auto: blockamc where tiles can hold "
           "it, else digital.", choices=("auto", "blockamc", "digital")),
    Option("pc_analog_share_tolerance", "real", 1e-6, "With -analog_tiles_per_rank: patches share a tile if the "
           "entries of their matrices, scaled to a unit diagonal, differ by no more.", low=0.0, high=0.1),
    Option("pc_analog_rank_unknowns", "int", 500, "Fewest unknowns a rank on a coarse level: smaller levels live on "
           "fewer ranks. 0: on all of them.", low=0),
    Option("pc_analog_reprogram", "choice", "on_change", "When PETSc sets the operator again: program if its values "
           "changed, always, or never.", choices=("on_change", "always", "never")),
)
CHIP_OPTIONS = (
    Option("analog_chip", "text", "rram128", "Chip preset, or a JSON file that describes one."),
    Option("analog_tile_size", "int", None, "Rows and columns of a tile.", low=1, high=4096),
    Option("analog_cell_bits", "int", None, "Bits of a memory cell (2^bits conductance levels).",
           low=1, high=16, ideal=True),
    Option("analog_programming_error", "real", None, "Standard deviation of a programmed conductance, as a fraction "
           "of the largest one.", low=0.0, high=0.5, ideal=True),
    Option("analog_read_noise", "real", None, "Standard deviation of a conductance from shot to shot, as a fraction "
           "of the largest one.", low=0.0, high=0.5, ideal=True),
    Option("analog_dac_bits", "int", None, "Bits of a digital-to-analog converter, sign included.",
           low=2, high=24, ideal=True),
    Option("analog_adc_bits", "int", None, "Bits of an analog-to-digital converter, sign included.",
           low=2, high=24, ideal=True),
    Option("analog_programming_model", "choice", None, "How the programming error depends on the conductance: a "
           "published fit (docs/cells.md) in place of a constant.", choices=(*MODELS,), ideal=True),
    Option("analog_level_spacing", "choice", None, "Levels of a cell at equal distances, or in equal ratios from its "
           "smallest conductance.", choices=("linear", "geometric")),
    Option("analog_sign_mapping", "choice", None, "Signs by differential pairs of cells, or by one cell an entry and a "
           "bias column.", choices=("pair", "bias")),
    Option("analog_off_conductance", "real", None, "Conductance in S of a cell that holds nothing; none: switched off "
           "by its transistor.", low=0.0, high=1e-2, ideal=True),
    Option("analog_off_error", "real", None, "Its standard deviation from cell to cell, as a fraction of the largest "
           "conductance.", low=0.0, high=0.5, ideal=True),
    Option("analog_time", "real", None, "Seconds since programming at which the tiles are used: cells drift.",
           low=0.0, high=1e10, ideal=True),
    Option("analog_stuck_low", "real", None, "Fraction of the cells that are stuck at zero.", low=0.0, high=0.2,
           ideal=True),
    Option("analog_stuck_high", "real", None, "Fraction of the cells that are stuck at the largest conductance.",
           low=0.0, high=0.2, ideal=True),
    Option("analog_dead_rows", "real", None, "Fraction of the row lines that are broken.", low=0.0, high=0.5,
           ideal=True),
    Option("analog_dead_columns", "real", None, "Fraction of the column lines that are broken.", low=0.0, high=0.5,
           ideal=True),
    Option("analog_dead_tiles", "real", None, "Fraction of the tiles that give no answer.", low=0.0, high=0.5,
           ideal=True),
    Option("analog_spares", "int", None, "Spare tiles that a block may be moved to in turn, if its tile is dead or too "
           "faulty (default 7).", low=0, high=7),
    Option("analog_pulse_step", "real", None, "Write–verify: largest change that a pulse aims at, as a fraction of the "
           "largest conductance; none: one write a cell.", low=1e-3, high=1.0, ideal=True),
    Option("analog_pulse_spread", "real", None, "Standard deviation of the change by one pulse, same fraction.",
           low=0.0, high=0.5, ideal=True),
    Option("analog_pulse_limit", "int", None, "Pulses after which a cell is given up.", low=1, high=10000),
    Option("analog_verify_tolerance", "real", None, "Distance from the target at which a cell is left, same fraction; "
           "none: √3 of the programming error.", low=1e-5, high=0.5, ideal=True),
    Option("analog_mvm_cell_bits", "int", None, "Bits of a matrix slice of the bit-sliced multiplier (HP-MVM).", low=1,
           high=8),
    Option("analog_mvm_input_bits", "int", None, "Bits of an input slice of the multiplier.", low=1, high=8),
    Option("analog_mvm_order", "choice", None, "Input slices one after the other on the same arrays, or in parallel "
           "on a copy of the arrays for each.", choices=("serial", "parallel")),
    Option("analog_mvm_programming_error", "real", None, "Programming error of the multiplier's cells, as a fraction "
           "of the largest conductance.", low=0.0, high=0.5, ideal=True),
    Option("analog_mvm_read_noise", "real", None, "Read noise of the multiplier's cells, as a fraction of the largest "
           "conductance.", low=0.0, high=0.5, ideal=True),
    Option("analog_mvm_adc_bits", "int", None, "Bits of the ADCs that read the products of slices.", low=2, high=24,
           ideal=True),
    Option("analog_dac_range", "real", None, "Full-scale voltage of the DACs, V; ideal: found at programming, so that "
           "no input drives an output beyond the swing.", low=1e-6, high=100.0, ideal=True),
    Option("analog_dac_offset", "real", None, "Standard deviation of a DAC's offset, fraction of the full scale.",
           low=0.0, high=0.5, ideal=True),
    Option("analog_dac_noise", "real", None, "Standard deviation of the noise of a digital-to-analog conversion, "
           "fraction of the full scale.", low=0.0, high=0.5, ideal=True),
    Option("analog_adc_range", "real", None, "Full-scale voltage of the ADCs, V, beyond which they clip; ideal: the "
           "tile's largest output.", low=1e-6, high=100.0, ideal=True),
    Option("analog_adc_calibrated", "real", None, "Full scale of the ADCs of open-loop arrays, the same for all "
           "vectors: this many times their largest output for random inputs at programming; ideal: follows each shot.",
           low=0.1, high=10.0, ideal=True),
    Option("analog_adc_offset", "real", None, "Standard deviation of an ADC's offset, fraction of the full scale.",
           low=0.0, high=0.5, ideal=True),
    Option("analog_adc_noise", "real", None, "Standard deviation of the noise of an analog-to-digital conversion, "
           "fraction of the full scale.", low=0.0, high=0.5, ideal=True),
    Option("analog_bound_repeats", "int", None, "How often a shot of a tile is repeated with half the input while an "
           "amplifier or an ADC clips and the input keeps four codes (default 10).", low=0, high=24),
    Option("analog_amplifier_gain", "real", None, "Open-loop gain of the amplifiers.", low=10, high=1e9, ideal=True),
    Option("analog_compensate_gain", "flag", None, "Take off the programmed diagonal what the finite gain of the "
           "amplifiers adds to it."),
    Option("analog_gain_bandwidth", "real", None, "Gain-bandwidth product of the amplifiers, Hz: sets the settling "
           "time.", low=1e3, high=1e12, ideal=True),
    Option("analog_second_pole", "real", None, "Second pole of the amplifiers, Hz.", low=1e3, high=1e13, ideal=True),
    Option("analog_settle_time", "real", None, "Time from the inputs to the reading of the outputs, s; ideal: "
           "settled.", low=1e-12, high=1.0, ideal=True),
    Option("analog_amplifier_offset", "real", None, "Standard deviation of the amplifiers' input offset, V.",
           low=0.0, high=0.1, ideal=True),
    Option("analog_output_swing", "real", None, "Largest output voltage of the amplifiers, V.", low=1e-3, high=100.0,
           ideal=True),
    Option("analog_input_conductance", "real", None, "Conductance through which a row is driven and which loads it, S; "
           "ideal: a current source.", low=1e-9, high=1.0, ideal=True),
    Option("analog_inverter_gain", "real", None, "Open-loop gain of the inverters' amplifiers.", low=10, high=1e9,
           ideal=True),
    Option("analog_inverter_gain_bandwidth", "real", None, "Gain-bandwidth product of the inverters' amplifiers, Hz.",
           low=1e3, high=1e12, ideal=True),
    Option("analog_inverter_offset", "real", None, "Standard deviation of the inverters' input offset, V.",
           low=0.0, high=0.1, ideal=True),
    Option("analog_inverter_mismatch", "real", None, "Standard deviation of the inverters' resistor ratio about one.",
           low=0.0, high=0.2, ideal=True),
    Option("analog_wire_resistance", "real", None, "Resistance of the wires from one cell to the next, rows and "
           "columns, ohm.", low=0.0, high=1e4, ideal=True),
    Option("analog_wires", "choice", None, "How the emulator eliminates the wires. exact: all nodes; approximate: "
           "entry by entry, with an error estimate; auto: exact up to 128 rows.",
           choices=("auto", "exact", "approximate")),
    Option("analog_blockamc", "int", 0, "How often a block may be halved, to be solved by BlockAMC on tiles of half or "
           "a quarter of its size: patches and the last level may be 1, 2 or 4 times a tile.", low=0, high=2),
    Option("analog_tiles_per_rank", "int", None, "Tiles of the chip that each rank drives. Equal patches then share a "
           "tile; what still does not fit is programmed in turn at every application.", low=1),
    Option("analog_seed", "int", 0, "Seed of every random draw.", low=0, high=2**63 - 1),
)
REPORT_OPTIONS = (
    Option("analog_report", "text", None, "Write the convergence report to FILE.json, .html or .txt (several, "
           "separated by commas)."),
)
GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    ("KSP analog: refinement", KSP_OPTIONS),
    ("PC analog: patches on tiles", PC_OPTIONS),
    ("The emulated chip", CHIP_OPTIONS),
    ("Convergence report", REPORT_OPTIONS),
)
TABLE: dict[str, Option] = {option.name: option for _, group in GROUPS for option in group}

_OURS = re.compile(r"^(?P<prefix>.*?)(?P<name>(?:(?:ksp|pc)_)?analog_.+)$")
# analog_ksp_max_it, analog_heat_pc_type: PETSc's, or ours, of a solver whose prefix has analog_ in it
_PREFIX = re.compile(r"^(?:(?:ksp|pc)_)?analog_(?:\w+?_)??(?=(?:ksp|pc|mat|snes|ts|tao|st|eps|mg|sub|fieldsplit|"
                     r"analog)_)")


def check_core(core: int | None, rows: int) -> None:
    """Refuse cores that no tile holds.

    Args:
        core: unknowns asked for. rows: of the largest block that tiles solve.

    Raises:
        InvalidInput: it is larger.
    """
    if core is not None and core > rows:
        raise InvalidInput("-pc_analog_core", core, f"an integer from 1 to {rows}, what tiles of this chip hold",
                           "A patch is its core and what overlaps it: half a tile is a good core in 2-D.")


def check_residual(values: Mapping[str, Any], bits_given: bool) -> None:
    """Refuse settings of the sliced residual where it is not the one that is formed.

    Args:
        values: of the options of KSP analog, by name. bits_given: whether the user said how many bits it has.

    Raises:
        InvalidInput: naming the setting.
    """
    if values["ksp_analog_residual"] == "sliced":
        return
    for name, idle in (("ksp_analog_residual_bits", bits_given),
                       ("ksp_analog_residual_progressive", bool(values["ksp_analog_residual_progressive"]))):
        if idle:
            raise InvalidInput(f"-{name}", values[name], "nothing without -ksp_analog_residual sliced",
                               "The digital residual is formed in FP64.")


def _in_a_file(name: str) -> str:
    """Return what to do about an option that is a field of chip files only; '' if there is no such field."""
    fields = [field for field in fields_of_chips() if name in (field.rpartition(".")[2], field.replace(".", "_"))]
    if not fields or any(field in targets for field in fields for targets in OVERRIDES.values()):
        return ""
    return f"{' and '.join(fields)}: only in a chip file, -analog_chip FILE.json."


def check_names(names: Iterable[str]) -> None:
    """Refuse a mistyped `-ksp_analog_*`, `-pc_analog_*` or `-analog_*` option.

    Args:
        names: option names of the database, without the dash, prefixes included.

    Raises:
        InvalidInput: with the nearest known name.
    """
    for name in names:
        match = _OURS.match(name)
        if match is None and name.startswith(("analog", "ksp_analog", "pc_analog")):
            # -analogue_chip: ours if it is all but one of ours, else some other program's
            if near := did_you_mean(name, TABLE, likeness=0.85):
                raise InvalidInput("unknown option", f"-{name}", "what `python -m analogpde options` lists",
                                   near.replace("mean ", "mean -"))
            continue
        if match is None or match["name"] in TABLE or match["name"].startswith(("pc_analog_mg_", "pc_analog_pc_mg_")):
            continue
        if ends := _PREFIX.match(match["name"]):
            rest = match["name"][ends.end():]
            if "analog_" in rest:
                check_names([rest])
                continue
            if not did_you_mean(match["name"], TABLE, likeness=0.78):  # -analog_pc_levels is a slip
                continue
        foreign = bool(match["prefix"]) and match["name"].startswith("analog_")
        field = "" if foreign else _in_a_file(match["name"].removeprefix("analog_"))
        near = did_you_mean(match["name"], TABLE, likeness=0.85 if foreign else 0.6)
        if foreign and not near:
            continue  # -my_analog_device is some other program's option
        raise InvalidInput("unknown option", f"-{name}", "what `python -m analogpde options` lists",
                           field or near.replace("mean ", f"mean -{match['prefix']}"))

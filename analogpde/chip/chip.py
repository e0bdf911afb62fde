"""The chip: everything that the emulation must know of the hardware, as data."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analogpde.chip.ageing import Drift, Faults
from analogpde.chip.amplifier import Amplifier, Inverter
from analogpde.chip.cell import Cell
from analogpde.chip.converter import Converter
from analogpde.chip.fields import allowed, check, from_mapping, quantity, refuse_unknown
from analogpde.chip.multiplier import Multiplier
from analogpde.chip.wire import Wire
from analogpde.chip.writing import Writing
from analogpde.errors import AnalogError, InvalidInput, did_you_mean

# The parts of a chip, and what a file may leave out of them: what it does not name is ideal.
PARTS: dict[str, type] = {"cell": Cell, "dac": Converter, "adc": Converter, "amplifier": Amplifier,
                          "inverter": Inverter, "wire": Wire, "drift": Drift, "faults": Faults,
                          "multiplier": Multiplier, "writing": Writing}
# Names of overrides, options of the chip without `analog_`: the parts and fields that they set.
OVERRIDES: dict[str, tuple[str, ...]] = {
    "tile_size": ("tile_size",), "cell_bits": ("cell.bits",), "programming_error": ("cell.programming_error",),
    "read_noise": ("cell.read_noise",), "dac_bits": ("dac.bits",), "adc_bits": ("adc.bits",),
    **{f"{part}_{name}": (f"{part}.{name}",) for part in ("dac", "adc") for name in ("range", "offset", "noise")},
    "adc_calibrated": ("adc.calibrated",),
    "bound_repeats": ("bound_repeats",), "amplifier_gain": ("amplifier.gain",),
    "gain_bandwidth": ("amplifier.gain_bandwidth",), "second_pole": ("amplifier.second_pole",),
    "amplifier_offset": ("amplifier.offset",),
    "output_swing": ("amplifier.swing",), "input_conductance": ("amplifier.input_conductance",),
    "settle_time": ("amplifier.settle_time",), "compensate_gain": ("amplifier.compensated",),
    "inverter_gain": ("inverter.gain",), "inverter_gain_bandwidth": ("inverter.gain_bandwidth",),
    "inverter_offset": ("inverter.offset",), "inverter_mismatch": ("inverter.mismatch",),
    "wire_resistance": ("wire.row", "wire.column"), "wires": ("wire.elimination",),
    **{name: (f"cell.{name}",) for name in ("programming_model", "off_conductance", "off_error", "sign_mapping",
                                              "level_spacing")},
    "time": ("drift.time",),
    **{name: (f"faults.{name}",)
       for name in ("stuck_low", "stuck_high", "dead_rows", "dead_columns", "dead_tiles", "spares")},
    "pulse_step": ("writing.step",), "pulse_spread": ("writing.spread",), "pulse_limit": ("writing.limit",),
    "verify_tolerance": ("writing.tolerance",),
    **{f"mvm_{name}": (f"multiplier.{name}",)
       for name in ("cell_bits", "input_bits", "programming_error", "read_noise", "adc_bits", "order")},
}
# Overrides that take others' place: a constant error and one that depends on the conductance exclude each other.
_REPLACED = {"programming_error": ("programming_model", "programming_polynomial"),
             "programming_model": ("programming_error", "programming_polynomial")}
# Fields that mean nothing once an override has made their part ideal.
_EMPTIED = {"pulse_step": ("spread", "tolerance"), "programming_model": ("programming_polynomial",),
            "amplifier_gain": ("compensated",)}


def _complete(part: dict[str, Any], where: str, wanted: tuple[str, ...]) -> None:
    """Refuse a JSON object that lacks one of the wanted fields."""
    for name in wanted:
        if name not in part:
            raise InvalidInput(f"{where}{name}", "nothing", "a value, null for an ideal one" if where else "a value",
                               "`analogpde chips rram128 --json` prints a complete file to start from.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuse one that says a field twice, of which JSON readers keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(twice, f"{names.count(twice)} values in one object", "one value")
    return found


def _refuse_unknown_sources(sources: dict[str, Any]) -> None:
    """Refuse a source of something that no chip has."""
    known = fields_of_chips()
    for key in sources:
        if key not in known:
            raise InvalidInput(f"sources.{key}", sources[key], "a field of a chip by its dotted name, as cell.bits",
                               did_you_mean(key, known))


@dataclass(frozen=True)
class Source:
    """Where a value comes from.

    Args:
        text: the citation, or the reasoning behind an assumed value.
        confidence: 'published', 'second-hand', 'assumed'.
    """

    text: str
    confidence: str

    def __post_init__(self) -> None:
        if self.confidence not in ("published", "second-hand", "assumed"):
            raise InvalidInput("sources.confidence", self.confidence, "published | second-hand | assumed")


@dataclass(frozen=True)
class Chip:
    """An analog matrix-equation chip as one rank drives it.

    Args:
        name: short name, as `-analog_chip` takes it.
        title: one line for people.
        tile_size: rows and columns of a tile.
        cell: the memory cell.
        dac, adc: converters of the input and the output lines.
        amplifier, inverter: of the rows, and of the columns of the negative array.
        wire: of the crossbars.
        bound_repeats: see `quantity`.
        drift: what time does to the cells. faults: what does not work.
        multiplier: the bit-sliced arrays of the HP-MVM.
        writing: how cells are written.
        sources: for each value (by dotted field name) where it comes from.
    """

    name: str
    title: str = ""
    tile_size: int = quantity("Rows and columns of a tile.", low=1, high=4096, integer=True, default=128)
    cell: Cell = field(default_factory=Cell)
    dac: Converter = field(default_factory=Converter)
    adc: Converter = field(default_factory=Converter)
    sources: dict[str, Source] = field(default_factory=dict)
    amplifier: Amplifier = field(default_factory=Amplifier)
    inverter: Inverter = field(default_factory=Inverter)
    wire: Wire = field(default_factory=Wire)
    bound_repeats: int = quantity(
        "How often a shot of a tile is repeated with half the input while an amplifier or an ADC clips and the input "
        "keeps four codes of the DAC.",
        low=0, high=24, integer=True, default=10)
    drift: Drift = field(default_factory=Drift)
    faults: Faults = field(default_factory=Faults)
    multiplier: Multiplier = field(default_factory=Multiplier)
    writing: Writing = field(default_factory=Writing)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidInput("name", self.name, "a non-empty text")
        if not isinstance(self.title, str):
            raise InvalidInput("title", self.title, "a text")
        for part, kind in PARTS.items():
            if not isinstance(getattr(self, part), kind):
                raise InvalidInput(part, getattr(self, part), f"a {kind.__name__}")
        check(self, "")
        if self.dac.calibrated is not None:
            raise InvalidInput("dac.calibrated", self.dac.calibrated, "null", "It is a matter of the ADCs; inputs "
                               "have a block exponent, and a DAC its range.")
        if self.cell.places is not None and (self.faults.stuck_low or self.faults.stuck_high):
            listed = self.cell.level_list is not None
            raise InvalidInput("cell.level_list" if listed else "cell.level_spacing",
                               "given" if listed else self.cell.level_spacing,
                               f"{'null' if listed else 'linear'} where cells are stuck",
                               "Slices make up for stuck cells by even levels only.")

    @property
    def deterministic(self) -> bool:
        """True if one shot is a linear map that never changes: no read noise, no offsets, nothing rounds or clips."""
        converters = all(part.bits is None and part.rounds_only for part in (self.dac, self.adc))
        return (self.quiet and converters and not self.amplifier.offset and not self.inverter.offset
                and self.amplifier.swing is None)

    @property
    def quiet(self) -> bool:
        """True if the cells are the same in every shot."""
        return not self.cell.read_noise and not self.cell.off_read_noise

    @property
    def lines(self) -> int:
        """Rows of the largest block that is planned for one tile: all of them, if none can be broken."""
        return self.faults.planned_lines(self.tile_size)

    @property
    def verify_tolerance(self) -> float:
        """Distance from its target at which a cell is left, fraction of the largest conductance; 0: no loop."""
        if self.writing.step is None:
            return 0.0
        return self.writing.tolerance or math.sqrt(3.0) * self.cell.typical_error

    @property
    def ideal_loop(self) -> bool:
        """True if what the amplifiers see is what the cells hold: infinite gains, exact inverters, no wires."""
        return (self.amplifier.gain is None and self.inverter.gain is None and not self.inverter.mismatch
                and self.wire.ideal)

    @property
    def ideal_lines(self) -> bool:
        """True if a shot does nothing to inputs and outputs but round them: volts play no part."""
        return (self.dac.rounds_only and self.adc.rounds_only and not self.amplifier.offset
                and not self.inverter.offset and self.amplifier.swing is None and self.amplifier.settle_time is None)

    def working_tiles(self, tiles: int) -> int:
        """Return how many of a limited number of tiles to count on: the dead ones' blocks go to the others."""
        return max(1, math.floor(tiles * (1.0 - (self.faults.dead_tiles or 0.0))))

    def without_dead_tiles(self) -> Chip:
        """Return the chip that is left when the dead tiles are known and set aside (`working_tiles`)."""
        return dataclasses.replace(self, faults=dataclasses.replace(self.faults, dead_tiles=None))

    def as_dict(self) -> dict[str, Any]:
        """Return the chip as plain JSON data; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the chip as a JSON text that `-analog_chip FILE.json` reads back."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_dict(data: Any) -> Chip:
        """Build a chip from JSON data.

        Raises:
            InvalidInput: an unknown field, a wrong type, a value out of range, or a part of the chip left out.
        """
        given = data
        if isinstance(data, dict):
            data = dict(data)
            refuse_unknown(Chip, data, "")
            if "name" not in data:
                raise InvalidInput("name", None, "a non-empty text", "Give the chip a name.")
            for key, kind in PARTS.items():
                if key in data:
                    data[key] = from_mapping(kind, data[key], f"{key}.")
            sources = data.get("sources", {})
            if not isinstance(sources, dict):
                raise InvalidInput("sources", sources, "a JSON object")
            _refuse_unknown_sources(sources)
            data["sources"] = {key: from_mapping(Source, value, f"sources.{key}.") for key, value in sources.items()}
        chip: Chip = from_mapping(Chip, data, "")
        # what is left out would be ideal, and nobody would see it
        _complete(given, "", ("tile_size", "cell", "dac", "adc"))
        _complete(given["cell"], "cell.", ("bits", "programming_error", "read_noise"))
        for key in ("dac", "adc"):
            _complete(given[key], f"{key}.", ("bits",))
        return chip

    @staticmethod
    def read(path: str | Path) -> Chip:
        """Read a chip from a JSON file.

        Raises:
            AnalogError: the file is missing, unreadable or not JSON.
            InvalidInput: a field is wrong.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")  # some editors on Windows write a mark first
        except (OSError, UnicodeDecodeError) as error:
            raise AnalogError(f"chip file {str(path)!r} cannot be read: {error}") from None
        try:
            data = json.loads(text, object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            raise AnalogError(
                f"chip file {str(path)!r} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
            ) from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
            raise AnalogError(f"chip file {str(path)!r} cannot be read: {error}") from None
        try:
            return Chip.from_dict(data)
        except InvalidInput as error:
            raise InvalidInput(f"chip file {str(path)!r}: {error.what}", error.got, error.allowed,
                               error.remedy) from None

    def replace(self, **overrides: Any) -> Chip:
        """Return a chip with some values overridden.

        Args:
            overrides: by the names of `OVERRIDES`; None is ideal.

        Raises:
            InvalidInput: an unknown name, or a value out of range.
        """
        chip, sources = self, dict(self.sources)
        for name in overrides:
            if name not in OVERRIDES:
                raise InvalidInput("override", name, ", ".join(OVERRIDES), did_you_mean(name, OVERRIDES))
        if None not in (overrides.get("programming_error"), overrides.get("programming_model")):
            raise InvalidInput("-analog_programming_error", overrides["programming_error"],
                               "nothing beside -analog_programming_model", "A constant error and one that depends on "
                               "the conductance exclude each other.")
        for name, targets in OVERRIDES.items():  # in this order: a settling time asks for a bandwidth
            if name not in overrides:
                continue
            for target in targets:
                part, _, attribute = target.rpartition(".")
                change = {attribute: overrides[name]}
                group = _EMPTIED if overrides[name] is None else _REPLACED
                held = getattr(chip, part) if part else chip
                replaced = tuple(other for other in group.get(name, ()) if getattr(held, other) not in (None, False))
                change |= {other: False if getattr(held, other) is True else None for other in replaced}
                for other in replaced:
                    sources.pop(f"{part}.{other}", None)
                try:
                    if part:
                        change = {part: dataclasses.replace(getattr(chip, part), **change)}
                    chip = dataclasses.replace(chip, **change)
                except InvalidInput as error:
                    other = "" if error.what.endswith(attribute) else f" with {error.what} of the chip {self.name!r}"
                    raise InvalidInput(f"-analog_{name}{other}", error.got, error.allowed, error.remedy) from None
                sources[target] = Source(f"overridden by -analog_{name}", "assumed")
        return dataclasses.replace(chip, sources=sources)

    def summary(self) -> str:
        """Return the chip in one line."""
        cell = self.cell
        bits = "continuous cells" if cell.bits is None else f"{cell.bits}-bit cells"
        programming = f"{cell.programming_error:.3g}" if cell.programming_error else cell.programming_model or "none"
        noise = f"{cell.read_noise:.3g}" if cell.read_noise else "none"
        dac = "ideal" if self.dac.bits is None else f"{self.dac.bits} bit"
        adc = "ideal" if self.adc.bits is None else f"{self.adc.bits} bit"
        line = (f"{self.name}: tile {self.tile_size}, {bits}, programming error {programming}, read noise {noise}, "
                f"DAC {dac}, ADC {adc}")
        return line + self._beside()

    def _beside(self) -> str:
        """Return in words what else is not as in a chip that says nothing of it; '' if nothing is."""
        said = ("bits", "programming_error", "read_noise", "programming_model", "conductance_max")
        words = []
        for part, kind in PARTS.items():
            if part == "drift" and not self.drift.any:
                words += ["cells that age does not change"] if self.drift.time else []
                continue
            for item in dataclasses.fields(kind):
                value = getattr(getattr(self, part), item.name)
                if (part == "cell" and item.name in said) or item.name == "bits" or value == item.default:
                    continue
                number = f"{value:.3g}" if isinstance(value, float) else str(value)
                unit = item.metadata.get("unit", "")
                name = f"{part} {item.name}".replace("_", " ")
                words.append(f"{name} {number}" + (f" {unit}" if unit else ""))
        return "".join(f", {word}" for word in words)

    def values(self) -> dict[str, Any]:
        """Return every value of the chip's hardware by dotted name; None where it is ideal."""
        found: dict[str, Any] = {"tile_size": self.tile_size, "bound_repeats": self.bound_repeats}
        for part, kind in PARTS.items():
            found |= {f"{part}.{item.name}": getattr(getattr(self, part), item.name)
                      for item in dataclasses.fields(kind)}
        return found

    def describe(self) -> str:
        """Return the chip with every value, its meaning, range, source and confidence, for people."""
        lines = [self.summary(), f"  {self.title}"] if self.title else [self.summary()]
        known, ideal = fields_of_chips(), []
        for name, value in self.values().items():
            if value is None:
                ideal.append(name)
                continue
            meaning, unit, allowed_values = known[name]
            lines += ["", f"  {name}: {as_words(value)}" + (f" {unit}" if unit else "")]
            texts = [f"{meaning} Allowed: {allowed_values}."]
            if name in self.sources:
                texts.append(f"Source: {self.sources[name].text} [{self.sources[name].confidence}]")
            for text in texts:
                lines += textwrap.wrap(text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
        return "\n".join([*lines, "", *textwrap.wrap("ideal: " + (", ".join(ideal) or "nothing"), 110,
                                                     initial_indent="  ", subsequent_indent="    ")])


def as_words(value: Any) -> str:
    """Return a value of a chip as people read it."""
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def fields_of_chips() -> dict[str, tuple[str, str, str]]:
    """Return meaning, unit and allowed values of every field of a chip's hardware, by dotted name."""
    found = {}
    for part, kind in (("", Chip), *PARTS.items()):
        for item in dataclasses.fields(kind):
            if "meaning" in item.metadata:
                name = f"{part}.{item.name}".strip(".")
                found[name] = (item.metadata["meaning"], item.metadata.get("unit", ""), allowed(item))
    return found

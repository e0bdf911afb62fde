"""The chip: everything that the emulation must know of the hardware, as data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analogpde.chip.cell import Cell
from analogpde.chip.converter import Converter
from analogpde.chip.fields import check, from_mapping, quantity, refuse_unknown
from analogpde.errors import AnalogError, InvalidInput, did_you_mean


def _complete(part: dict[str, Any], where: str, wanted: tuple[str, ...]) -> None:
    """Refuse a JSON object that lacks one of the wanted fields."""
    for name in wanted:
        if name not in part:
            raise InvalidInput(f"{where}{name}", "nothing", "a value, null for an ideal one" if where else "a value",
                               "`analogpde chips rram128 --json` prints a complete file to start from.")


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
        sources: for each value (by dotted field name) where it comes from.
    """

    name: str
    title: str = ""
    tile_size: int = quantity("Rows and columns of a tile.", low=1, high=4096, integer=True, default=128)
    cell: Cell = field(default_factory=Cell)
    dac: Converter = field(default_factory=Converter)
    adc: Converter = field(default_factory=Converter)
    sources: dict[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidInput("name", self.name, "a non-empty text")
        if not isinstance(self.title, str):
            raise InvalidInput("title", self.title, "a text")
        for part, kind in (("cell", Cell), ("dac", Converter), ("adc", Converter)):
            if not isinstance(getattr(self, part), kind):
                raise InvalidInput(part, getattr(self, part), f"a {kind.__name__}")
        check(self, "")

    @property
    def deterministic(self) -> bool:
        """True if one shot is a linear map that never changes: no read noise, ideal converters."""
        return not self.cell.read_noise and self.dac.bits is None and self.adc.bits is None

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
            if "cell" in data:
                data["cell"] = from_mapping(Cell, data["cell"], "cell.")
            for key in ("dac", "adc"):
                if key in data:
                    data[key] = from_mapping(Converter, data[key], f"{key}.")
            sources = data.get("sources", {})
            if not isinstance(sources, dict):
                raise InvalidInput("sources", sources, "a JSON object")
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
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AnalogError(f"chip file {str(path)!r} cannot be read: {error}") from None
        try:
            data = json.loads(text)
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
            overrides: tile_size, cell_bits, programming_error, read_noise, dac_bits, adc_bits; None is ideal.

        Raises:
            InvalidInput: an unknown name, or a value out of range.
        """
        targets = {"tile_size": ("", "tile_size"), "cell_bits": ("cell", "bits"),
                   "programming_error": ("cell", "programming_error"), "read_noise": ("cell", "read_noise"),
                   "dac_bits": ("dac", "bits"), "adc_bits": ("adc", "bits")}
        chip, sources = self, dict(self.sources)
        for name, value in overrides.items():
            if name not in targets:
                raise InvalidInput("override", name, ", ".join(targets), did_you_mean(name, targets))
            part, attribute = targets[name]
            try:
                if part:
                    chip = dataclasses.replace(
                        chip, **{part: dataclasses.replace(getattr(chip, part), **{attribute: value})})
                else:
                    chip = dataclasses.replace(chip, **{attribute: value})
            except InvalidInput as error:
                raise InvalidInput(f"-analog_{name}", error.got, error.allowed, error.remedy) from None
            sources[f"{part}.{attribute}".strip(".")] = Source(f"overridden by -analog_{name}", "assumed")
        return dataclasses.replace(chip, sources=sources)

    def summary(self) -> str:
        """Return the chip in one line."""
        cell = self.cell
        bits = "continuous cells" if cell.bits is None else f"{cell.bits}-bit cells"
        programming = f"{cell.programming_error:.3g}" if cell.programming_error else "none"
        noise = f"{cell.read_noise:.3g}" if cell.read_noise else "none"
        dac = "ideal" if self.dac.bits is None else f"{self.dac.bits} bit"
        adc = "ideal" if self.adc.bits is None else f"{self.adc.bits} bit"
        return (f"{self.name}: tile {self.tile_size}, {bits}, programming error {programming}, read noise {noise}, "
                f"DAC {dac}, ADC {adc}")

    def describe(self) -> str:
        """Return the chip with every value's source and confidence, for people."""
        lines = [self.summary(), f"  {self.title}"] if self.title else [self.summary()]
        lines += [f"  {name}: {source.text} [{source.confidence}]" for name, source in self.sources.items()]
        return "\n".join(lines)

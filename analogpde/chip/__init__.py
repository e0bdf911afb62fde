"""The hardware as data: frozen dataclasses whose every field has a unit, a range and a source."""

from analogpde.chip.ageing import Drift, Faults
from analogpde.chip.cell import Cell
from analogpde.chip.chip import Chip, Source
from analogpde.chip.converter import Converter
from analogpde.chip.multiplier import Multiplier
from analogpde.chip.presets import PRESETS, load

__all__ = ["PRESETS", "Cell", "Chip", "Converter", "Drift", "Faults", "Multiplier", "Source", "load"]

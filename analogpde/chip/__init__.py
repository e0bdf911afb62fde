"""The hardware as data: frozen dataclasses whose every field has a unit, a range and a source."""

from analogpde.chip.ageing import Drift, Faults
from analogpde.chip.amplifier import Amplifier, Inverter
from analogpde.chip.cell import Cell
from analogpde.chip.chip import Chip, Source
from analogpde.chip.converter import Converter
from analogpde.chip.multiplier import Multiplier
from analogpde.chip.presets import PRESETS, load
from analogpde.chip.wire import Wire
from analogpde.chip.writing import Writing

__all__ = ["PRESETS", "Amplifier", "Cell", "Chip", "Converter", "Drift", "Faults", "Inverter", "Multiplier", "Source",
           "Wire", "Writing", "load"]

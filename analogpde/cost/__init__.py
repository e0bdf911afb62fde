"""Counts of what the emulated machine did, and estimates of what it would cost."""

from analogpde.cost.constants import CONSTANTS, Constant
from analogpde.cost.ledger import Ledger, settling_unit
from analogpde.cost.model import Run, estimate
from analogpde.cost.tiles import TileUse

__all__ = ["CONSTANTS", "Constant", "Ledger", "Run", "TileUse", "estimate", "settling_unit"]

"""How a chip with few tiles is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TileUse:
    """Patches on the tiles of a limited chip, over all levels and ranks.

    Args:
        limit: tiles that each rank's chip has.
        patches: patches of the matrix and of its coarse levels.
        tiles: distinct patches: what was programmed.
        shared: of these, tiles that several patches share.
        turning: of the distinct patches, those for which no tile is left: they are programmed at each application.
    """

    limit: int
    patches: int = 0
    tiles: int = 0
    shared: int = 0
    turning: int = 0

    @property
    def reuse_factor(self) -> float:
        """Patches per programmed tile."""
        return self.patches / self.tiles if self.tiles else 0.0

    def __add__(self, other: TileUse) -> TileUse:
        return TileUse(max(self.limit, other.limit), self.patches + other.patches, self.tiles + other.tiles,
                       self.shared + other.shared, self.turning + other.turning)

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name, as the report stores them."""
        return {"limit": self.limit, "patches": self.patches, "tiles": self.tiles, "shared": self.shared,
                "turning": self.turning, "reuse_factor": self.reuse_factor}

    def __str__(self) -> str:
        rest = f"{self.turning} of them programmed again at each application" if self.turning else "all stay programmed"
        return (f"{self.patches} patches on {self.tiles} programmed tiles (reuse factor {self.reuse_factor:.3g}), "
                f"{self.shared} tiles shared; {self.limit} tiles a rank: {rest}")

"""From a sparse matrix to overlapping patches that fit a tile, and the coarse space they span."""

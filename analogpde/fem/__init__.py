"""What the problem scripts share: command line, assemble-once systems, time stepping, output, pictures.

The layer above the plugin. Importing it loads MPI, PETSc and DOLFINx in the order they need.
"""

import sys

_words = sys.argv
# A script's -help is its own page: PETSc, which reads the same command line, would print hundreds of lines first.
sys.argv = [word for word in _words if word != "-help"]
try:
    from analogpde.petsc import stack  # noqa: F401 - before mpi4py, petsc4py and dolfinx
finally:
    sys.argv = _words

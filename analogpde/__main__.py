"""`python -m analogpde script.py [arguments, PETSc options]`, and the commands of `analogpde`."""

from analogpde.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

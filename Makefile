# The two commands: `make demo` and `make test`. Both set up what they need; `make help` lists the rest.
# PYTHON=…  the interpreter to make .venv with         MPIRUN="mpirun --oversubscribe"  another MPI's launcher

.PHONY: help setup demo test lint docs clean
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS
# The wheel's own launcher; with another FEniCSx the one on PATH.
MPIRUN ?= $$(if [ -x .venv/bin/mpirun ]; then echo .venv/bin/mpirun; else echo mpirun; fi)

help:
	@echo 'make demo    set up, then heat a finned heat sink on 2 ranks with -ksp_type analog; results/heat/'
	@echo 'make test    set up, then all tests: on 1 rank, then those marked mpi on 2 and on 3'
	@echo 'make lint    set up, then ruff and mypy'
	@echo 'make docs    set up, then build the documentation into build/site'
	@echo 'make setup   only make .venv and install into it'
	@echo 'make clean   remove .venv, caches and build products (results/ stay)'

setup:
	@sh scripts/setup.sh plots test
	@echo 'setup: ready. Try: .venv/bin/python -m analogpde doctor'

demo:
	@sh scripts/setup.sh plots
	@rm -f results/heat/report.json
	@echo 'demo: mpirun -n 2 .venv/bin/python problems/heat.py -ksp_type analog -out results/heat'
	@$(MPIRUN) -n 2 .venv/bin/python problems/heat.py -ksp_type analog -out results/heat \
	  || { echo 'demo: FAILED, see above. What is installed: .venv/bin/python -m analogpde doctor'; exit 1; }
	@echo 'demo: done. Pictures, ParaView files and the report (report.html) are in results/heat/.'

test:
	@sh scripts/setup.sh plots test
	@MPIRUN="$(MPIRUN)" sh scripts/test.sh

lint:
	@sh scripts/setup.sh lint
	@.venv/bin/python -m ruff check . && .venv/bin/python -m mypy && echo 'lint: passed.' \
	  || { echo 'lint: FAILED, see above.'; exit 1; }

docs:
	@sh scripts/setup.sh docs
	@.venv/bin/python scripts/make_docs.py && .venv/bin/python -m mkdocs build --strict --quiet --site-dir build/site \
	  && echo 'docs: done. Open build/site/index.html.' || { echo 'docs: FAILED, see above.'; exit 1; }

clean:
	@rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .numba_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'clean: done. .venv, caches and build products are removed; results/ stay.'

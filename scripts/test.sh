#!/bin/sh
# All tests of `make test`: on 1 rank, a process a core, then those marked `mpi` on 2 and on 3 ranks. All three run
# even if one fails.
# MPIRUN: the launcher. TEST_MINUTES: after how long a run counts as hanging (default 20).
set -u
cd "$(dirname "$0")/.."
minutes=${TEST_MINUTES:-20}
failed=

# limited SECONDS NAME COMMAND…
limited() {
    seconds=$1 name=$2
    shift 2
    echo "test: $name"
    # --foreground: Ctrl-C still reaches the tests.
    if command -v timeout >/dev/null; then timeout --foreground -k 20 "$seconds" "$@"; else "$@"; fi
    code=$?
    case $code in
    0) return ;;
    124 | 137) why="no end after $((seconds / 60)) min: taken for a hang and ended (TEST_MINUTES=40 make test allows more)" ;;
    5) why="no test was found" ;;
    *) why="exit code $code" ;;
    esac
    failed="$failed${failed:+; }$name: $why"
}

limited $((minutes * 60)) '1 rank' .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
for ranks in 2 3; do
    limited $((minutes * 60)) "$ranks ranks" $MPIRUN -n $ranks .venv/bin/python -m pytest -m mpi "$@"
done
if [ -n "$failed" ]; then
    echo "test: FAILED ($failed)."
    exit 1
fi
echo 'test: passed on 1, 2 and 3 ranks.'

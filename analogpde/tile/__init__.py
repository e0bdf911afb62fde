"""The hardware at work: banks of tiles worked as one batch, without MPI."""

"""What running a study costs: many runs, the runner beside a bare loop, and several workers."""

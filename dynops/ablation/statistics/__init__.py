"""Statistics that know nothing of records and plans: arrays by seed in, plain results out."""

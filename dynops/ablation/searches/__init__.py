"""Searches: many combinations of levels tried for an outcome against its costs. They explore, and confirm nothing."""

"""Do the statistics hold? Planted effects, drawn again and again."""

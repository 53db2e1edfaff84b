"""Which channels can only be removed together: one decision variable per channel group."""

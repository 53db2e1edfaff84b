"""How good a candidate is: recalibrated and scored, never on the report split."""

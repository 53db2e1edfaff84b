"""What a job found, as data and in words."""

"""What a person can ask for: the settings of a job, validated."""

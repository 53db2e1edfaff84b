"""Studies: what each layer bears, what each channel is worth, and which criteria know it; nothing is delivered."""

"""How long networks take on a device, measured in the runtime that will run them."""

"""Named architectures whose weights come as safetensors."""

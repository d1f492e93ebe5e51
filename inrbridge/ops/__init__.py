"""Floor 1: kernels on plain tensors and index arrays; they know nothing of domains or layers."""

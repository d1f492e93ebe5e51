"""Floor 1: Triton kernels for the GPU; without triton, or elsewhere, their plain torch twins do the work."""

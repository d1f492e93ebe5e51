"""Floor 1: kernels in C++ for the CPU, compiled on first use; without a compiler their plain torch twins do the work."""

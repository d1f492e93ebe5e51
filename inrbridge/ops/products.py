"""Floor 1: products of tall matrices with small ones, by the library that is quickest at them."""

import torch
from torch import Tensor


def matmul(rows: Tensor, transposed: Tensor) -> Tensor:
    """rows (m, p) times the transpose of (q, p), by oneDNN where torch has it: MKL is slow at skinny float32 products on AMD."""
    if rows.dtype == torch.float32 and rows.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(rows, transposed, None, "none", [], "")
    return rows @ transposed.t()

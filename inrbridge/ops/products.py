"""Floor 1: products of tall matrices with small ones, by the library that is quickest at them."""

import torch
from torch import Tensor


def matmul(rows: Tensor, transposed: Tensor) -> Tensor:
    """rows (m, p) times the transpose of (q, p), in float32 by oneDNN where MKL is slow: on AMD processors with AVX-512."""
    if rows.dtype == torch.float32 and rows.device.type == "cpu" and _prefers_onednn():
        return torch.ops.mkldnn._linear_pointwise(rows, transposed, None, "none", [], "")
    return rows @ transposed.t()


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right to a total (g, p, q), of left (g, m, p) and right (g, m, q), in the precision of the total."""
    if total.dtype != left.dtype:
        total += left.mT @ right
    elif len(total) == 1:
        total[0].addmm_(left[0].t(), right[0])
    else:
        total.baddbmm_(left.mT, right)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which many terms of a dtype are added."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _prefers_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")

"""Floor 1: the local operator in chunks of plain torch: linear in the points, small temporaries.

Values travel points first, (n, b, c), so that a neighbour is one contiguous row. A chunk gathers its
neighbours, contracts them with the stencil and multiplies by the kernel while they are still in cache.
The backward pass gathers again instead of storing: its input gradient is the same operator with the
transposed stencil, its kernel gradient one product a chunk.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = 1 << 18  # elements gathered at a time: about 1 MiB in float32, the second-level cache of one core


def _matmul(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows (m, p) @ matrix (p, q), by oneDNN where torch has it: skinny float32 products are slow in MKL on AMD."""
    if rows.dtype == torch.float32 and rows.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(rows, matrix.t().contiguous(), None, "none", [], "")
    return rows @ matrix


def _nodes(rows: Tensor, index: Tensor, weight: Tensor, batch: int) -> Tensor:
    """Evaluate the kernel nodes of a chunk: rows (n, b*c), index (p, t), weight (p, k, t) -> (p, b, k, c)."""
    gathered = rows.index_select(0, index.reshape(-1)).view(*index.shape, -1)  # (p, t, b*c)
    return torch.bmm(weight, gathered).unflatten(2, (batch, -1)).transpose(1, 2)


def _mix(nodes: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """Multiply nodes (p, b, k, c) by kernel (k, c / groups, o) -> (p, b, o)."""
    p, b, k, c = nodes.shape
    if groups == 1:
        return _matmul(nodes.reshape(p * b, k * c), kernel.reshape(k * c, -1)).view(p, b, -1)
    if c == groups and kernel.shape[2] == groups:  # depth-wise: one multiply and add a node
        return (nodes * kernel[:, 0]).sum(2)
    grouped = nodes.reshape(p * b, k, groups, c // groups).permute(2, 0, 1, 3).reshape(groups, p * b, -1)
    matrices = kernel.unflatten(2, (groups, -1)).permute(2, 0, 1, 3).reshape(groups, grouped.shape[2], -1)
    return torch.bmm(grouped, matrices).permute(1, 0, 2).reshape(p, b, -1)


def _chunk(index: Tensor, width: int) -> int:
    return max(1, _CHUNK // max(1, index.shape[1] * width))


def local_forward(values: Tensor, index: Tensor, weight: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """Points-first forward: values (n, b, c), index (m, t), weight (m, k, t) -> (m, b, o)."""
    n, b, c = values.shape
    rows = values.reshape(n, b * c)
    out = values.new_empty(index.shape[0], b, kernel.shape[2])
    step = _chunk(index, b * c)
    for start in range(0, index.shape[0], step):
        part = slice(start, start + step)
        out[part] = _mix(_nodes(rows, index[part], weight[part], b), kernel, groups)
    return out


def local_kernel_gradient(values: Tensor, index: Tensor, weight: Tensor, grad: Tensor, shape: torch.Size, groups: int) -> Tensor:
    """Gradient of the kernel (k, c / groups, o) from the output's gradient (m, b, o)."""
    n, b, c = values.shape
    rows = values.reshape(n, b * c)
    total = values.new_zeros(groups, shape[0] * shape[1], shape[2] // groups)
    step = _chunk(index, b * c)
    for start in range(0, index.shape[0], step):
        part = slice(start, start + step)
        nodes = _nodes(rows, index[part], weight[part], b)  # (p, b, k, c)
        p = nodes.shape[0]
        left = nodes.reshape(p * b, shape[0], groups, shape[1]).permute(2, 1, 3, 0).reshape(groups, -1, p * b)
        right = grad[part].reshape(p * b, groups, -1).transpose(0, 1)
        total += torch.bmm(left, right)
    return total.unflatten(1, (shape[0], shape[1])).permute(1, 2, 0, 3).reshape(shape)


def _transposed_kernel(kernel: Tensor, groups: int) -> Tensor:
    """Kernel of the input gradient: (k, c / groups, o) -> (k, o / groups, c)."""
    return kernel.unflatten(2, (groups, -1)).permute(0, 3, 2, 1).flatten(2)


class LocalOperator(torch.autograd.Function):
    """y = local(values, kernel) with the geometry held fixed; `transposed` gives (index, weight) of the transpose on demand."""

    @staticmethod
    def forward(ctx, values, kernel, index, weight, transposed, groups):
        ctx.save_for_backward(values, kernel, index, weight)
        ctx.transposed, ctx.groups = transposed, groups
        return local_forward(values, index, weight, kernel, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        values, kernel, index, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_values = grad_kernel = None
        if ctx.needs_input_grad[0]:
            index_t, weight_t = ctx.transposed()
            grad_values = local_forward(grad, index_t, weight_t, _transposed_kernel(kernel, ctx.groups), ctx.groups)
        if ctx.needs_input_grad[1]:
            grad_kernel = local_kernel_gradient(values, index, weight, grad, kernel.shape, ctx.groups)
        return grad_values, grad_kernel, None, None, None, None


class BinnedOperator(torch.autograd.Function):
    """The local operator where each neighbour feeds one node only: gather, multiply, scatter, one bin at a time.

    Work is pairs x c x o whatever the number of bins (Wang & Golland 2023, section 4.3).
    """

    @staticmethod
    def forward(ctx, values, kernel, target, source, weight, offsets, n_out):
        # pairs sorted by bin: target (p,), source (p,), weight (p,); bin k owns offsets[k]:offsets[k + 1]
        ctx.save_for_backward(values, kernel, target, source, weight)
        ctx.offsets = offsets
        out = values.new_zeros(n_out, values.shape[1], kernel.shape[2])
        for k in range(kernel.shape[0]):
            pairs = slice(offsets[k], offsets[k + 1])
            if pairs.start == pairs.stop:
                continue
            rows = values.index_select(0, source[pairs]) * weight[pairs, None, None]  # (p, b, c)
            out.index_add_(0, target[pairs], _matmul(rows.flatten(0, 1), kernel[k]).view(*rows.shape[:2], -1))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        values, kernel, target, source, weight = ctx.saved_tensors
        grad_values = torch.zeros_like(values) if ctx.needs_input_grad[0] else None
        grad_kernel = torch.zeros_like(kernel) if ctx.needs_input_grad[1] else None
        for k in range(kernel.shape[0]):
            pairs = slice(ctx.offsets[k], ctx.offsets[k + 1])
            if pairs.start == pairs.stop:
                continue
            flow = grad.index_select(0, target[pairs]) * weight[pairs, None, None]  # (p, b, o)
            if grad_values is not None:
                back = _matmul(flow.flatten(0, 1), kernel[k].t())
                grad_values.index_add_(0, source[pairs], back.view(*flow.shape[:2], -1))
            if grad_kernel is not None:
                rows = values.index_select(0, source[pairs])
                grad_kernel[k] = rows.flatten(0, 1).t() @ flow.flatten(0, 1)
        return grad_values, grad_kernel, None, None, None, None, None

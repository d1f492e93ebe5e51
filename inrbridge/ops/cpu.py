"""Floor 1: the local operator in chunks of plain torch: linear in the points, small temporaries.

Values travel points first, (n, b, c), so that a neighbour is one contiguous row. A chunk gathers its
neighbours, contracts them with the stencil and multiplies by the kernel while they are still in cache.
The backward pass stores nothing but its inputs: the transposed stencil brings the output's gradient G to the
input points, H_jk = sum_i P[i,k,j] G_i, whence both df_j = sum_k H_jk W_k^T and dW_k = sum_j f_j^T H_jk.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = 1 << 18  # elements gathered at a time: about 1 MiB in float32, the second-level cache of one core


def _matmul(rows: Tensor, transposed: Tensor) -> Tensor:
    """rows (m, p) times the transpose of (q, p), by oneDNN where torch has it: MKL is slow at skinny float32 products on AMD."""
    if rows.dtype == torch.float32 and rows.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(rows, transposed, None, "none", [], "")
    return rows @ transposed.t()


def _nodes(rows: Tensor, index: Tensor, weight: Tensor, batch: int) -> Tensor:
    """Evaluate the kernel nodes of a chunk: rows (n, b*c), index (p, t), weight (p, k, t) -> (p, b, k, c)."""
    gathered = rows.index_select(0, index.reshape(-1)).view(*index.shape, -1)  # (p, t, b*c)
    return torch.bmm(weight, gathered).unflatten(2, (batch, -1)).transpose(1, 2)


def _by_group(kernel: Tensor, groups: int) -> Tensor:
    """Kernel (k, c / groups, o) as one matrix a group, transposed: (groups, o / groups, k * c / groups), contiguous."""
    k, c, _ = kernel.shape
    return kernel.unflatten(2, (groups, -1)).permute(2, 3, 0, 1).reshape(groups, -1, k * c)


def _adjoint(kernel: Tensor, groups: int) -> Tensor:
    """Kernel of the input gradient: (k, c / groups, o) -> (k, o / groups, c)."""
    return kernel.unflatten(2, (groups, -1)).permute(0, 3, 2, 1).flatten(2)


def _group_rows(nodes: Tensor, groups: int) -> Tensor:
    """Nodes (p, b, k, c) as rows of each group: (groups, p * b, k * c / groups)."""
    p, b, k, c = nodes.shape
    if groups == 1:
        return nodes.reshape(1, p * b, k * c)
    return nodes.reshape(p * b, k, groups, c // groups).permute(2, 0, 1, 3).reshape(groups, p * b, -1)


def _mix(rows: Tensor, matrices: Tensor) -> Tensor:
    """Rows (groups, m, q) by matrices (groups, o / groups, q) -> (m, o)."""
    if len(matrices) == 1:
        return _matmul(rows[0], matrices[0])
    return torch.bmm(rows, matrices.transpose(1, 2)).transpose(0, 1).flatten(1)


def _chunks(index: Tensor, width: int) -> list[slice]:
    step = max(1, _CHUNK // max(1, index.shape[1] * width))
    return [slice(start, start + step) for start in range(0, index.shape[0], step)]


def local_forward(values: Tensor, kernel: Tensor, index: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Points-first forward: values (n, b, c), index (m, t), weight (m, k, t) -> (m, b, o)."""
    n, b, c = values.shape
    rows, matrices = values.reshape(n, b * c), _by_group(kernel, groups)
    out = values.new_empty(index.shape[0], b, kernel.shape[2])
    depthwise = c == groups == kernel.shape[2]
    for part in _chunks(index, b * c):
        nodes = _nodes(rows, index[part], weight[part], b)
        if depthwise:  # one multiply and add a node
            out[part] = (nodes * kernel[:, 0]).sum(2)
        else:
            out[part] = _mix(_group_rows(nodes, groups), matrices).view(-1, b, kernel.shape[2])
    return out


def local_backward(
    values: Tensor, kernel: Tensor, grad: Tensor, index: Tensor, weight: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """Both gradients from the output's gradient (m, b, o), with the lists of the transposed stencil."""
    m, b, o = grad.shape
    rows, adjoint = grad.reshape(m, b * o), _by_group(_adjoint(kernel, groups), groups)
    grad_values = torch.empty_like(values)
    total = values.new_zeros(groups, values.shape[2] // groups, kernel.shape[0] * o // groups)
    for part in _chunks(index, b * o):
        flow = _group_rows(_nodes(rows, index[part], weight[part], b), groups)  # H: (groups, p * b, k * o / groups)
        grad_values[part] = _mix(flow, adjoint).view(-1, b, values.shape[2])
        own = values[part].reshape(-1, groups, values.shape[2] // groups).permute(1, 2, 0)
        total.baddbmm_(own, flow)
    return grad_values, total.unflatten(2, (kernel.shape[0], -1)).permute(2, 1, 0, 3).reshape(kernel.shape)


def local_kernel_gradient(values: Tensor, kernel: Tensor, grad: Tensor, index: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Gradient of the kernel alone, from the stencil itself: cheaper where the input needs no gradient."""
    n, b, c = values.shape
    k, o = kernel.shape[0], kernel.shape[2]
    rows = values.reshape(n, b * c)
    total = values.new_zeros(groups, k * c // groups, o // groups)
    for part in _chunks(index, b * c):
        left = _group_rows(_nodes(rows, index[part], weight[part], b), groups)
        right = grad[part].reshape(-1, groups, o // groups).transpose(0, 1)
        total.baddbmm_(left.transpose(1, 2), right)
    return total.unflatten(1, (k, -1)).permute(1, 2, 0, 3).reshape(kernel.shape)


class LocalOperator(torch.autograd.Function):
    """y = local(values, kernel) with the geometry held fixed; `transposed` gives (index, weight) of the transpose on demand."""

    @staticmethod
    def forward(ctx, values, kernel, index, weight, transposed, groups):
        ctx.save_for_backward(values, kernel, index, weight)
        ctx.transposed, ctx.groups = transposed, groups
        return local_forward(values, kernel, index, weight, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        values, kernel, index, weight = ctx.saved_tensors
        grad = grad.contiguous()
        if ctx.needs_input_grad[0]:
            grads = local_backward(values, kernel, grad, *ctx.transposed(), ctx.groups)
        else:
            grads = None, local_kernel_gradient(values, kernel, grad, index, weight, ctx.groups)
        return *grads, None, None, None, None


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
        matrices = kernel.transpose(1, 2).contiguous()
        for k in range(kernel.shape[0]):
            pairs = slice(offsets[k], offsets[k + 1])
            if pairs.start == pairs.stop:
                continue
            rows = values.index_select(0, source[pairs]) * weight[pairs, None, None]  # (p, b, c)
            out.index_add_(0, target[pairs], _matmul(rows.flatten(0, 1), matrices[k]).view(*rows.shape[:2], -1))
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
                back = _matmul(flow.flatten(0, 1), kernel[k])
                grad_values.index_add_(0, source[pairs], back.view(*flow.shape[:2], -1))
            if grad_kernel is not None:
                rows = values.index_select(0, source[pairs])
                grad_kernel[k] = rows.flatten(0, 1).t() @ flow.flatten(0, 1)
        return grad_values, grad_kernel, None, None, None, None, None

"""Each rule of a converted net, by the spellings that torch has for it: equal to torch on the pixel grid for any number of
fields, and on the same pixels given as mere points. A rule that silently fell back to its grid would show in `own_grids`."""

import math

import pytest
import torch
import torch.nn.functional as F
from reference_conversion import converted, images_of, on_bare_pixels, on_grid
from torch import nn

C, H, W = 4, 6, 8


class Applied(nn.Module):
    """A network of one function f(parts, x), where parts has weights and layers."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.scale, self.matrix, self.kernel, self.image = draw(C, 1, 1), draw(3, C), draw(4, C, 3, 3), draw(1, C, H, W)
        self.gain = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.row, self.slopes, self.lift, self.tokens = draw(1, 1, 1, W), draw(C), draw(C, 2, 2, 2), draw(1, H * W, C)
        self.register_buffer("mean", torch.arange(C, dtype=torch.float64).view(1, C, 1, 1) / C)
        self.conv, self.norm = nn.Conv2d(C, C, 3, padding=1).double(), nn.LayerNorm(C).double()
        self.attention = nn.MultiheadAttention(C, 2, batch_first=True).double()
        with torch.no_grad():
            for part in (self.conv, self.norm, self.attention):
                for weight in part.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=generator))

    def forward(self, x):
        return self.function(self, x * self.gain)


def heads(x):
    return x.flatten(2).unflatten(1, (2, -1)).transpose(-2, -1)


def self_attention(parts, x):
    tokens = x.flatten(2).transpose(1, 2)
    return parts.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


def added_in_place(parts, x):
    y = x * 2
    y += x
    y *= parts.mean
    return y - x


def back(x):
    """Tokens (b, n, c) as a map."""
    return x.transpose(1, 2).unflatten(2, (H, W))


# what stays on points
ON_POINTS = {
    # layout
    "flatten_method": lambda p, x: back(x.flatten(2).transpose(1, 2)),
    "flatten_function": lambda p, x: back(torch.flatten(x, start_dim=2, end_dim=-1).permute(0, 2, 1)),
    "flatten_module": lambda p, x: x.flatten(-2).mean(-1),
    "view_sizes": lambda p, x: back(x.view(x.shape[0], -1, x.size(2) * x.size(3)).transpose(-1, -2)),
    "view_tuple": lambda p, x: x.view((x.size(0), C, -1)).amax(dim=2),
    "reshape_keyword": lambda p, x: x.reshape(shape=(-1, 2, 2, H, W)).sum(2),
    "reshape_of_batch": lambda p, x: x.reshape(-1, 2, H, W).view(-1, C, H, W) * 2,
    "shape_unpacked": lambda p, x: (lambda b, c, h, w: x.reshape(b, 2, c // 2, h, w).flatten(1, 2))(*x.shape),
    "size_call": lambda p, x: back(x.reshape(*x.size()[:2], math.prod(x.size()[2:])).transpose(1, 2)),
    "permute_last": lambda p, x: (x.permute(0, 2, 3, 1) @ p.matrix.t()).permute(0, 3, 1, 2),
    "permute_tuple": lambda p, x: torch.permute(x, (0, 2, 3, 1)).permute(dims=(0, -1, 1, 2)),
    "movedim": lambda p, x: torch.movedim(x, 1, -1).movedim(-1, 1),
    "swapaxes": lambda p, x: x.flatten(2).swapaxes(1, 2).transpose(dim0=1, dim1=2).unflatten(2, (H, W)),
    "unsqueeze": lambda p, x: (x.unsqueeze(1) * x.unsqueeze(2)).flatten(1, 2),
    "squeeze": lambda p, x: x[:, None].squeeze(1) + x.unsqueeze(-1).squeeze(-1),
    "chunk": lambda p, x: torch.cat([part * (i + 1) for i, part in enumerate(x.chunk(2, dim=1))], dim=1),
    "chunk_function": lambda p, x: torch.mul(*torch.chunk(x, 2, 1)),
    "split_number": lambda p, x: torch.sub(*x.split(2, 1)),
    "split_keyword": lambda p, x: torch.sub(*x.split(split_size=2, dim=1)),
    "split_sizes": lambda p, x: torch.split(x, [1, 3], dim=1)[1],
    "tensor_split": lambda p, x: torch.tensor_split(x, 2, dim=1)[0],
    "unbind": lambda p, x: torch.stack(x.unbind(1)[:2], dim=1),
    "stack_last": lambda p, x: torch.stack([x, x * 2], -1).sum(-1),
    "cat_axis": lambda p, x: torch.cat([x, x * 2], axis=1),
    "cat_negative": lambda p, x: torch.cat((x, p.image.expand(x.shape[0], -1, -1, -1)), -3),
    "cat_wide": lambda p, x: torch.cat([x, x.mean((2, 3), keepdim=True).expand(-1, -1, H, W)], 1),
    "index_negative": lambda p, x: x[:, -1:] + x[:, [1]] * x[:, -3, None],
    "index_ellipsis": lambda p, x: x[:, 1:, ...] * x[..., :1, :, :],
    "index_channels": lambda p, x: x[:, [2, 1, 0]],
    "index_select": lambda p, x: torch.index_select(x, 1, torch.tensor([0, 2])),
    "narrow_select": lambda p, x: x.narrow(1, 1, 2) * x.select(1, 0).unsqueeze(1),
    "flip": lambda p, x: x.flip(1) + torch.flip(x, dims=[1]),
    "roll": lambda p, x: torch.roll(x, 1, 1) + x.roll(shifts=(1,), dims=(1,)),
    "repeat": lambda p, x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda p, x: x.repeat_interleave(2, dim=1),
    "cumsum": lambda p, x: torch.cumsum(x, dim=1),
    "channel_shuffle": lambda p, x: F.channel_shuffle(x, 2),
    "shuffle_by_hand": lambda p, x: x.view(x.shape[0], 2, 2, H, W).transpose(1, 2).contiguous().view(x.shape[0], -1, H, W),
    # pointwise
    "parameter_and_buffer": lambda p, x: (x - p.mean) * p.scale,
    "image_parameter": lambda p, x: x + p.image,
    "row_parameter": lambda p, x: x + p.row,
    "in_place": lambda p, x: x.mul(2).add_(1).clamp_(min=0),
    "in_place_operator": added_in_place,
    "functional_in_place": lambda p, x: F.relu(x + 1, inplace=True) + F.relu_(x * 2) + F.leaky_relu_(x - 1, 0.2),
    "numbers": lambda p, x: 1 - 2 / (x**2 + 1) + (-x) // 1 + abs(x),
    "scaled_add": lambda p, x: torch.add(x, other=p.mean, alpha=2) + torch.rsub(x, 1),
    "where": lambda p, x: torch.where(x > 0, x, 0.1 * x) + x.masked_fill(x < 0, 0.5),
    "clamp": lambda p, x: torch.clamp(x, min=-0.5, max=0.5) + x.clamp(-1) + F.hardtanh(x, -0.2, 0.2),
    "maximum": lambda p, x: torch.maximum(x, p.mean) + torch.max(x, x.flip(1)) + torch.min(x, other=p.mean),
    "activations": lambda p, x: F.gelu(x, approximate="tanh") + F.silu(x) * F.hardswish(x) + F.softplus(x, beta=2.0),
    "leaky": lambda p, x: F.leaky_relu(x, 0.2) + F.elu(x, alpha=0.5) + F.prelu(x, p.slopes),
    "glu": lambda p, x: F.glu(x, dim=1),
    "alike": lambda p, x: torch.ones_like(x) * 2 + torch.full_like(x, 3.0) * x + torch.zeros_like(x),
    "like_input": lambda p, x: x.to(x.dtype) + x.float().to(x) + x.type_as(x),
    "softmax_channels": lambda p, x: x.softmax(1) + F.log_softmax(x, dim=1) + torch.softmax(x, dim=-3),
    # reductions
    "mean_list": lambda p, x: x.mean(dim=[-2, -1]),
    "mean_keep": lambda p, x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "mean_axis": lambda p, x: torch.mean(x, axis=(2, 3), keepdims=True).flatten(1),
    "mean_all": lambda p, x: x.mean(dim=(1, 2, 3)),
    "mean_channels": lambda p, x: torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1),
    "sum": lambda p, x: torch.sum(x, dim=(-1, -2)) / (H * W) + x.sum((2, 3)),
    "amax": lambda p, x: x.amax(dim=(2, 3)) + torch.amin(x, (2, 3)),
    "max_of_tokens": lambda p, x: x.flatten(2).max(-1).values + x.flatten(2).max(dim=2)[0],
    "argmax": lambda p, x: x * (x.argmax(1, keepdim=True) == 1),
    "std": lambda p, x: x.std(dim=(2, 3)) + x.var((2, 3), unbiased=False) + torch.var(x, dim=(2, 3), correction=0),
    "std_channels": lambda p, x: (x - x.mean(1, True)) / (x.std(1, keepdim=True) + 1e-3),
    "norm_pixels": lambda p, x: x * x.norm(p=2, dim=(2, 3), keepdim=True),
    "vector_norm": lambda p, x: torch.linalg.vector_norm(x, ord=2, dim=(2, 3)) + torch.linalg.vector_norm(x, 3, (-2, -1)),
    "normalize": lambda p, x: F.normalize(x, dim=1) + F.normalize(x, 1.0, 1),
    "global_average": lambda p, x: F.adaptive_avg_pool2d(x, (1, 1)).flatten(1),
    "global_window": lambda p, x: F.avg_pool2d(x, x.shape[2:]).view(x.shape[0], -1),
    "global_maximum": lambda p, x: F.adaptive_max_pool2d(x, 1)[:, :, 0, 0],
    # products
    "linear_last": lambda p, x: F.linear(x.permute(0, 2, 3, 1), p.matrix).permute(0, 3, 1, 2),
    "matrix_first": lambda p, x: torch.matmul(p.matrix, x.flatten(2)).unflatten(-1, (H, W)),
    "matrix_of_field": lambda p, x: torch.bmm(p.matrix.expand(x.size(0), -1, -1), x.flatten(2)).view(-1, 3, H, W),
    "channel_attention": lambda p, x: (lambda t: back(t @ t.mean(1, True).transpose(1, 2) * t))(x.flatten(2).transpose(1, 2)),
    "scaled_dot_product": lambda p, x: F.scaled_dot_product_attention(heads(x), heads(x * 2), heads(x + 1)).transpose(
        -2, -1).flatten(1, 2).unflatten(-1, (H, W)),
    "scale_of_attention": lambda p, x: back(F.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2)] * 3, scale=0.3)),
    "multihead": self_attention,
    "multihead_of_grid": lambda p, x: back(p.attention(*[p.norm(x.flatten(2).transpose(1, 2))] * 3)[0]),
    # norms
    "layer_norm_last": lambda p, x: p.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "layer_norm_function": lambda p, x: F.layer_norm(x.permute(0, 2, 3, 1), (C,), p.norm.weight, eps=1e-3).permute(0, 3, 1, 2),
    "layer_norm_by_hand": lambda p, x: p.scale * (x - x.mean(1, keepdim=True)) / torch.sqrt(
        (x - x.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True) + 1e-6),
    "layer_norm_whole": lambda p, x: F.layer_norm(x, x.shape[1:]),
    "rms_norm": lambda p, x: back(F.rms_norm(x.flatten(2).transpose(1, 2), (C,), p.slopes)),
    "group_norm": lambda p, x: F.group_norm(x, 2, p.slopes, bias=p.slopes, eps=1e-3),
    "instance_norm": lambda p, x: F.instance_norm(x, weight=p.slopes),
    "batch_norm": lambda p, x: F.batch_norm(x, p.slopes, p.slopes.abs() + 1, weight=p.slopes, training=False),
    # kernels
    "conv_function": lambda p, x: F.conv2d(x, p.kernel, p.slopes, (2, 1), (1, 1), 1),
    "conv_keywords": lambda p, x: F.conv2d(x, weight=p.kernel[:, :2], padding="same", dilation=(1, 2), groups=2),
    "conv_valid": lambda p, x: F.conv2d(x, p.kernel, padding="valid", stride=(1, 2)),
    "conv_even": lambda p, x: F.conv2d(x, p.kernel[:, :, :2], padding=(1, 0)),
    "conv_same_even": lambda p, x: F.conv2d(x, p.kernel[:, :, :2, 1:], padding="same"),
    "weight_standardized": lambda p, x: F.conv2d(x, (p.kernel - p.kernel.mean((1, 2, 3), keepdim=True)) / p.kernel.std()),
    "conv_transpose": lambda p, x: F.conv_transpose2d(x, p.lift, stride=2) ,
    "pad_zeros": lambda p, x: F.conv2d(F.pad(x, (1, 2, 0, 1)), p.kernel),
    "pad_and_padding": lambda p, x: F.conv2d(F.pad(x, [1, 0, 1, 0]), p.kernel, padding=1),
    "pad_reflect": lambda p, x: F.conv2d(F.pad(x, (2, 1, 1, 2), "reflect"), p.kernel, stride=2),
    "pad_replicate": lambda p, x: F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), p.kernel, dilation=2),
    "pad_circular": lambda p, x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), p.kernel),
    "pad_two_kinds": lambda p, x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), p.kernel, padding=1),
    "pad_constant": lambda p, x: F.conv2d(F.pad(x, (1, 1, 1, 1), "constant", 2.0), p.kernel),
    "pad_infinite": lambda p, x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 2, 1),
    "pad_twice": lambda p, x: F.conv2d(F.pad(F.pad(x, (1, 0)), (0, 0, 1, 1), "replicate"), p.kernel),
    "pad_channels": lambda p, x: F.pad(x, (0, 0, 0, 0, 1, 2)) + 1,
    "pad_channels_and_pixels": lambda p, x: F.conv2d(F.pad(x, (1, 1, 1, 1, 0, 0), value=0.5), p.kernel),
    "pad_then_relu": lambda p, x: F.relu(F.pad(x, (1, 1, 1, 1), value=0.5)),
    "pad_crop": lambda p, x: F.conv2d(F.pad(x, (-1, 1, -1, -1)), p.kernel),
    "pad_last": lambda p, x: F.pad(x.permute(0, 2, 3, 1), (0, 2)).permute(0, 3, 1, 2),
    "shortcut_a": lambda p, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0),
    "slice_odd": lambda p, x: x[:, :, 1::2, ::3] * 2,
    "slice_negative": lambda p, x: x[..., 1:-1, -5:-2],
    "crop_channels": lambda p, x: x[:, 1:3, 1:, 2:],
    "max_pool": lambda p, x: F.max_pool2d(x, 3, 2, 1),
    "max_pool_keywords": lambda p, x: F.max_pool2d(x, kernel_size=(2, 3), stride=(1, 2), dilation=(2, 1), ceil_mode=True),
    "avg_pool": lambda p, x: F.avg_pool2d(x, 2) + F.avg_pool2d(x, (2, 2), (2, 2)),
    "avg_pool_padding": lambda p, x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) + F.avg_pool2d(x, 3, 1, 1),
    "avg_pool_ceil": lambda p, x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
    "avg_pool_divisor": lambda p, x: F.avg_pool2d(x, 3, 2, 1, divisor_override=2),
    "lp_pool": lambda p, x: F.lp_pool2d(x.abs(), 2.0, 2),
    "adaptive_average": lambda p, x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive_none": lambda p, x: F.adaptive_avg_pool2d(x, (None, 4)),
    "adaptive_maximum": lambda p, x: F.adaptive_max_pool2d(x, (3, 3)),
    "interpolate_nearest": lambda p, x: F.interpolate(x, scale_factor=2),
    "interpolate_exact": lambda p, x: F.interpolate(x, size=(9, 11), mode="nearest-exact"),
    "interpolate_bilinear": lambda p, x: F.interpolate(x, (H * 2, W * 2), mode="bilinear"),
    "interpolate_corners": lambda p, x: F.interpolate(x, size=(11, 15), mode="bilinear", align_corners=True),
    "interpolate_bicubic": lambda p, x: F.interpolate(x, scale_factor=(0.5, 1.5), mode="bicubic", align_corners=False),
    "interpolate_area": lambda p, x: F.interpolate(x, size=(3, 4), mode="area"),
    "interpolate_same": lambda p, x: F.interpolate(x, size=x.shape[2:], mode="bilinear", align_corners=False),
    "interpolate_back": lambda p, x: x + F.interpolate(F.avg_pool2d(x, 2), size=x.shape[-2:], mode="bilinear"),
    "pixel_shuffle": lambda p, x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda p, x: F.pixel_unshuffle(x, 2),
    "constants": lambda p, x: x * torch.arange(x.shape[1], dtype=x.dtype, device=x.device).view(1, -1, 1, 1),
    "coordinates": lambda p, x: x + torch.linspace(0, 1, x.shape[-1], dtype=x.dtype).view(1, 1, 1, -1),
    "new_zeros": lambda p, x: torch.cat([x, x.new_zeros(x.shape[0], 2, *x.shape[2:])], 1),
    "zeros_of_batch": lambda p, x: x + torch.zeros(x.shape[0], C, 1, 1, dtype=x.dtype),
    "batch_as_number": lambda p, x: x.sum() / x.numel() + x.mean((2, 3)),
}  # fmt: skip

# what is bound to the pixels of a grid
ON_GRIDS = {
    "linear_of_pixels": lambda p, x: F.linear(x.flatten(1), p.image.flatten(1)),
    "position_embedding": lambda p, x: back(x.flatten(2).transpose(1, 2) + p.tokens),
    "class_token": lambda p, x: torch.cat([p.slopes.expand(x.shape[0], 1, -1), x.flatten(2).transpose(1, 2)], 1).mean(1),
    "softmax_pixels": lambda p, x: (x.flatten(2).softmax(-1) * x.flatten(2)).sum(-1),
    "products_of_pixels": lambda p, x: back((lambda t: (t @ t.transpose(1, 2)).softmax(-1) @ t)(x.flatten(2).transpose(1, 2))),
    "rows_alone": lambda p, x: x.mean(3),
    "one_row": lambda p, x: x[:, :, 2].mean(-1) + x[..., -1].sum(2),
    "mirror": lambda p, x: x + x.flip(-1),
    "rolled": lambda p, x: torch.roll(x, (1, 2), (2, 3)),
    "transposed": lambda p, x: x.transpose(2, 3).contiguous(),
    "indices": lambda p, x: F.max_pool2d(x, 2, return_indices=True)[0],
    "response": lambda p, x: F.local_response_norm(x, 3),
    "einsum": lambda p, x: torch.einsum("bchw,oc->bohw", x, p.matrix),
    "windows": lambda p, x: x.view(x.shape[0], C, 2, 3, 2, 4).amax((3, 5)),
    "unfold": lambda p, x: F.unfold(x, 3, padding=1).mean(-1),
    "pool_beyond_padding": lambda p, x: F.avg_pool2d(x, (3, 2), 3, 1, ceil_mode=True),
    "moments": lambda p, x: torch.var_mean(x, (2, 3))[0],
}


@pytest.mark.parametrize("name", [*ON_POINTS, *ON_GRIDS])
@torch.no_grad()
def test_each_operation_equals_torch(name):
    module = Applied({**ON_POINTS, **ON_GRIDS}[name])
    images = images_of(C, (H, W))
    net = converted(module, images)
    for fields in (1, 2, 5):
        some = images_of(C, (H, W), fields)
        wanted = module(some.clone())
        torch.testing.assert_close(on_grid(net, some).reshape(wanted.shape), wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(on_bare_pixels(net, some).reshape(wanted.shape), wanted, rtol=0, atol=1e-9)
    assert bool(net.placement.own_grids) == (name in ON_GRIDS)

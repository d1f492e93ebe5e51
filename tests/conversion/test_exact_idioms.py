"""Idioms of published networks beyond the families: written as people write them, exact on the grid and on bare pixels."""

import math

import pytest
import torch
import torch.nn.functional as F
from discrete.families import draw
from reference_conversion import assert_equal, converted, images_of, on_bare_pixels, on_grid
from torch import nn


class SamePadding(nn.Conv2d):
    """Padding computed from the size of the input, as TensorFlow has it."""

    def forward(self, x):
        ih, iw = x.size()[-2:]
        kh, kw = self.weight.size()[-2:]
        oh, ow = math.ceil(ih / self.stride[0]), math.ceil(iw / self.stride[1])
        pad_h = max((oh - 1) * self.stride[0] + (kh - 1) * self.dilation[0] + 1 - ih, 0)
        pad_w = max((ow - 1) * self.stride[1] + (kw - 1) * self.dilation[1] + 1 - iw, 0)
        if pad_h > 0 or pad_w > 0:
            x = F.pad(x, [pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2])
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Excitation(nn.Module):
    """Squeeze and excitation by two linear layers, hard sigmoid."""

    def __init__(self, width):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(width, 2), nn.ReLU(inplace=True), nn.Linear(2, width), nn.Hardsigmoid(inplace=True))

    def forward(self, x):
        b, c, _, _ = x.size()
        return x * self.fc(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1).expand_as(x)


class Pyramid(nn.Module):
    """Pooled to 1, 2, 3 and 4 cells, enlarged, joined (Zhao et al. 2017)."""

    def __init__(self, width=4):
        super().__init__()
        self.stem = SamePadding(3, width, 3, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(width, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU())
            for n in (1, 2, 3, 4)
        )
        self.out = nn.Conv2d(width + 8, 3, 3, padding=1)

    def forward(self, x):
        size, f = x.shape[2:], self.stem(x)
        pooled = [F.interpolate(stage(f), size=f.size()[2:], mode="bilinear", align_corners=True) for stage in self.stages]
        return F.interpolate(self.out(torch.cat([f, *pooled], 1)), size, mode="bilinear", align_corners=False)


class Resolutions(nn.Module):
    """Two resolutions side by side that exchange their maps (Sun et al. 2019)."""

    def __init__(self, width=4):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.high, self.low = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(2 * width, 2 * width, 3, 1, 1)
        self.up = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.Upsample(scale_factor=2, mode="nearest"))
        self.again = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.head = nn.Linear(2 * width, 5)

    def forward(self, x):
        high = self.stem(x).relu_()
        low = self.down(high).relu_()
        high, low = self.high(high), self.low(low)
        high, low = F.relu(high + self.up(low)), F.relu(self.again(high) + low)
        return self.head(torch.cat([high.mean((-2, -1)), low.amax((2, 3))[:, :4]], dim=-1))


class Unpooled(nn.Module):
    """Maxima go back to where they came from (Badrinarayanan et al. 2017)."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, 2, return_indices=True), nn.MaxUnpool2d(2, 2)

    def forward(self, x):
        x = F.relu(self.encode(x))
        x, indices = self.pool(x)
        return self.decode(self.unpool(x * 0.5, indices))


class Pooling(nn.Module):
    """Averages minus the map itself instead of attention, scales of layers (Yu et al. 2022)."""

    def __init__(self, width=4):
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, width, 7, 4, 2), nn.GroupNorm(1, width)
        self.pool, self.scale = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), nn.Parameter(torch.ones(width))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.embed(x)
        y = self.norm(x)
        x = x + self.scale.unsqueeze(-1).unsqueeze(-1) * (self.pool(y) - y)
        return self.head(x.mean([-2, -1]))


class SpatialGate(nn.Module):
    """Attention of channels and of places from means and maxima (Woo et al. 2018)."""

    def __init__(self, width=4):
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, width, 3, padding=1), nn.Sequential(nn.Flatten(), nn.Linear(width, width))
        self.spatial, self.head = nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.Conv2d(width, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        mean = self.shared(F.avg_pool2d(x, (x.size(2), x.size(3)), stride=(x.size(2), x.size(3))))
        peak = self.shared(F.max_pool2d(x, (x.size(2), x.size(3)), stride=(x.size(2), x.size(3))))
        x = x * torch.sigmoid(mean + peak).unsqueeze(2).unsqueeze(3).expand_as(x)
        both = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return self.head(x * torch.sigmoid(self.spatial(both)))


class RelativePositions(nn.Module):
    """Windowed attention with a bias by relative position and a mask (Liu et al. 2021)."""

    def __init__(self, width=8, heads=2, window=4, shift=2, side=8):
        super().__init__()
        self.embed, self.qkv = nn.Conv2d(3, width, 2, 2), nn.Linear(width, 3 * width)
        self.heads, self.window, self.shift = heads, window, shift
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        offsets = (places[:, :, None] - places[:, None]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", offsets[..., 0] * (2 * window - 1) + offsets[..., 1])
        regions = torch.zeros(1, side, side, 1)
        for i, rows in enumerate((slice(0, -window), slice(-window, -shift), slice(-shift, None))):
            for j, columns in enumerate((slice(0, -window), slice(-window, -shift), slice(-shift, None))):
                regions[:, rows, columns] = 3 * i + j
        regions = self.partition(regions).flatten(1)
        self.register_buffer("mask", ((regions[:, None] != regions[:, :, None]) * -100.0)[:, None])
        self.head = nn.Linear(width, 3)

    def partition(self, x):
        b, h, w, c = x.shape
        x = x.view(b, h // self.window, self.window, w // self.window, self.window, c)
        return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, self.window**2, c)

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        tokens = self.partition(torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2)))
        q, k, v = self.qkv(tokens).reshape(tokens.shape[0], -1, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(self.window**2, self.window**2, -1).permute(2, 0, 1).contiguous()
        scores = (q @ k.transpose(-2, -1)) * (c // self.heads) ** -0.5 + bias.unsqueeze(0)
        count = self.mask.shape[0]
        scores = scores.view(tokens.shape[0] // count, count, self.heads, -1, self.window**2) + self.mask.unsqueeze(0)
        scores = scores.flatten(0, 1)
        y = (F.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(-1, self.window, self.window, c)
        y = y.view(b, h // self.window, w // self.window, self.window, self.window, c)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return self.head((x + torch.roll(y, (self.shift, self.shift), (1, 2))).flatten(1, 2).mean(1))


class Distilled(nn.Module):
    """Two extra tokens, embeddings of rows and columns, blocks of torch (Touvron et al. 2021)."""

    def __init__(self, width=8, side=4):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.cls, self.dist = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 1, width))
        self.rows, self.columns = nn.Embedding(side, width), nn.Embedding(side, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True, norm_first=True)
        self.heads = nn.ModuleList([nn.Linear(width, 3), nn.Linear(width, 3)])

    def forward(self, x):
        x = self.patches(x)
        h, w = x.shape[-2:]
        places = self.rows(torch.arange(h, device=x.device))[:, None] + self.columns(torch.arange(w, device=x.device))[None]
        x = x.flatten(2).transpose(-1, -2) + places.reshape(1, h * w, -1)
        x = torch.cat((self.cls.repeat(x.shape[0], 1, 1), self.dist.expand(x.size(0), -1, -1), x), dim=1)
        x = self.block(x)
        return (self.heads[0](x[:, 0]) + self.heads[1](x[:, 1])) / 2


class LinearAttention(nn.Module):
    """Keys and values meet first: linear in the number of places (Shen et al. 2021)."""

    def __init__(self, width=4):
        super().__init__()
        self.qkv, self.out = nn.Conv2d(3, 3 * width, 1), nn.Conv2d(width, 2, 1)

    def forward(self, x):
        b, _, h, w = x.shape
        q, k, v = (part.reshape(b, 2, -1, h * w) for part in self.qkv(x).chunk(3, 1))
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(dim=-1), v)
        return self.out(torch.einsum("bhde,bhdn->bhen", context, q.softmax(dim=-2)).reshape(b, -1, h, w))


class Ghost(nn.Module):
    """Cheap maps beside few (Han et al. 2020), a shuffle of halves, a scale of the image known in advance."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.first, self.cheap = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.act, self.drop, self.fc = nn.Hardswish(), nn.Dropout2d(0.2), nn.Linear(6, 3)

    def forward(self, x):
        x = self.act(self.first((x - self.mean) / 0.25))
        x = torch.cat([x, self.cheap(x)], 1)[:, :7]
        left, right = torch.split(x, [3, 4], dim=1)
        x = self.drop(torch.stack((left, right[:, :3]), dim=2).flatten(1, 2))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, (1, 1)), 1))


class Causal(nn.Module):
    """A line: weight-normalized dilated convolutions that are cut at the end (Bai et al. 2018)."""

    def __init__(self, width=4):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv1d(c, width, 3, padding=2 * d, dilation=d))
            for c, d in ((1, 1), (width, 2))
        )
        self.head = nn.Conv1d(width, 2, 1)

    def forward(self, x):
        for conv, d in zip(self.convs, (1, 2), strict=True):
            x = F.relu(conv(x)[:, :, : -2 * d].contiguous())
        return self.head(x)


class Residual3d(nn.Module):
    """A volume: slices along one axis kept, others halved; a mean per channel at the end."""

    def __init__(self, width=4):
        super().__init__()
        self.first, self.norm = nn.Conv3d(1, width, 3, stride=(1, 2, 2), padding=1), nn.GroupNorm(2, width)
        self.pool, self.skip = nn.MaxPool3d((1, 2, 2)), nn.Conv3d(width, 3, 1)

    def forward(self, x):
        x = F.elu(self.norm(self.first(x)))
        return self.skip(self.pool(x) + F.avg_pool3d(x, (1, 2, 2))).flatten(2).mean(2)


NETWORKS = {
    "pyramid": (Pyramid, 3, (13, 16)), "excitation": (lambda: nn.Sequential(SamePadding(3, 4, 4, 2), Excitation(4)), 3, (9, 12)),
    "resolutions": (Resolutions, 3, (12, 16)), "unpooled": (Unpooled, 3, (8, 12)), "pooling": (Pooling, 3, (20, 24)),
    "spatial_gate": (SpatialGate, 3, (10, 12)), "relative_positions": (RelativePositions, 3, (16, 16)),
    "distilled": (Distilled, 3, (16, 16)), "linear_attention": (LinearAttention, 3, (6, 8)), "ghost": (Ghost, 3, (8, 8)),
    "causal": (Causal, 1, (40,)), "residual_3d": (Residual3d, 1, (4, 12, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_published_idioms_are_exact(name):
    network, channels, resolution = NETWORKS[name]
    module = draw(network(), torch.Generator().manual_seed(0)).double().eval()
    images = images_of(channels, resolution)
    net = converted(module, images)
    for fields in (1, 3):
        some = images_of(channels, resolution, fields)
        wanted = module(some)
        assert wanted.std() > 1e-3
        assert_equal(on_grid(net, some), wanted)
        assert_equal(on_bare_pixels(net, some), wanted, wanted.abs().max())
    torch.manual_seed(0)
    wanted = module.train()(images)
    torch.manual_seed(0)
    assert_equal(on_grid(net.train(), images), wanted)

"""Networks of tokens: vision transformers in three writings, an MLP-Mixer, MobileViT-, CvT- and Swin-like."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def perceptron(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class EncoderBlock(nn.Module):
    """Normalization first, `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = perceptron(width, 2 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.ln_1(tokens)
        x, _ = self.self_attention(x, x, x, need_weights=False)
        x = x + tokens
        return x + self.mlp(self.ln_2(x))


class ViT(nn.Module):
    """Patches by a convolution, a class token in front, learned positions; the class token is classified."""

    def __init__(self, side: int = 32, patch: int = 8, width: int = 16, heads: int = 2, channels: int = 3, classes: int = 10):
        super().__init__()
        self.side, self.patch, self.width = side, patch, width
        self.conv_proj = nn.Conv2d(channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embedding = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.layers = nn.Sequential(EncoderBlock(width, heads), EncoderBlock(width, heads))
        self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        torch._assert(h == self.side, f"Got an image of height {h}, expected {self.side}.")
        torch._assert(w == self.side, f"Got an image of width {w}, expected {self.side}.")
        cells = (h // self.patch) * (w // self.patch)
        x = self.conv_proj(x).reshape(n, self.width, cells).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(n, -1, -1), x], dim=1)
        x = self.ln(self.layers(x + self.pos_embedding))
        return self.head(x[:, 0])


class Attention(nn.Module):
    """Queries, keys and values by one linear layer, `F.scaled_dot_product_attention` or (not fused) matrix products."""

    def __init__(self, width: int, heads: int, fused: bool = True):
        super().__init__()
        self.heads, self.fused, self.scale = heads, fused, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(B, N, C))


class AttentionBlock(nn.Module):
    def __init__(self, width: int, heads: int, fused: bool):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads, fused)
        self.norm2, self.mlp = nn.LayerNorm(width), perceptron(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PooledViT(nn.Module):
    """Positions are added to the patches, the class token joins them, and the mean of the patches is classified."""

    def __init__(self, side: int = 32, patch: int = 8, width: int = 16, heads: int = 2, channels: int = 3, classes: int = 10,
                 fused: bool = True):  # fmt: skip
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (side // patch) ** 2, width))
        self.blocks = nn.Sequential(*(AttentionBlock(width, heads, fused) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = x + self.pos_embed
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.blocks(x)
        return self.head(self.norm(x[:, 1:].mean(dim=1)))


class EncoderViT(nn.Module):
    """The same with `nn.TransformerEncoder`, no class token; the deepest tokens become a map again where `dense`."""

    def __init__(self, side: int = 32, patch: int = 8, width: int = 16, heads: int = 2, channels: int = 3, classes: int = 10,
                 dense: bool = False):  # fmt: skip
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.zeros((side // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.side, self.patch, self.dense = side, patch, dense
        self.head = nn.Conv2d(width, classes, 1) if dense else nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).permute(0, 2, 1) + self.positions
        x = self.encoder(x)
        if not self.dense:
            return self.head(x.mean(1))
        cells = self.side // self.patch
        x = x.permute(0, 2, 1).view(x.shape[0], -1, cells, cells)
        return F.interpolate(self.head(x), scale_factor=self.patch, mode="bilinear", align_corners=False)


class MixerBlock(nn.Module):
    """A perceptron over the tokens, a perceptron over the channels."""

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp_tokens, self.mlp_channels = perceptron(tokens, 2 * tokens), perceptron(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp_channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self, side: int = 32, patch: int = 8, width: int = 16, channels: int = 3, classes: int = 10):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, patch, stride=patch)
        self.blocks = nn.Sequential(*(MixerBlock((side // patch) ** 2, width) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class MobileViT(nn.Module):
    """Convolutions; at the deep level tokens, and back to a map beside what they were made of."""

    def __init__(self, width: int = 8, heads: int = 2, channels: int = 3, classes: int = 10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.SiLU())
        self.down = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.SiLU())
        self.local = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 2 * width, 1))
        self.blocks = nn.Sequential(EncoderBlock(2 * width, heads), EncoderBlock(2 * width, heads))
        self.project = nn.Conv2d(2 * width, width, 1)
        self.fuse = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.stem(x))
        y = self.local(x)
        b, c, h, w = y.shape
        y = self.blocks(y.flatten(2).transpose(1, 2))
        y = self.project(y.transpose(1, 2).reshape(b, c, h, w))
        y = self.fuse(torch.cat((x, y), dim=1))
        return self.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))


class CvT(nn.Module):
    """Queries from a depthwise convolution, keys and values from one with stride 2."""

    def __init__(self, width: int = 16, heads: int = 2, channels: int = 3, classes: int = 10):
        super().__init__()
        self.embed = nn.Conv2d(channels, width, 7, stride=4, padding=3)
        self.query = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width))
        self.memory = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1, groups=width, bias=False), nn.BatchNorm2d(width))
        self.to_q, self.to_kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm, self.fc, self.heads = nn.LayerNorm(width), nn.Linear(width, classes), heads

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q = self.to_q(self.query(x).flatten(2).transpose(1, 2))
        k, v = self.to_kv(self.memory(x).flatten(2).transpose(1, 2)).chunk(2, dim=-1)
        y = F.scaled_dot_product_attention(self.split(q), self.split(k), self.split(v))
        y = x.flatten(2).transpose(1, 2) + self.out(y.transpose(1, 2).flatten(2))
        return self.fc(self.norm(y).mean(1))


class WindowAttention(nn.Module):
    """Attention within windows of `size` x `size` cells, shifted by `shift` cells, channels last."""

    def __init__(self, width: int, size: int, shift: int):
        super().__init__()
        self.size, self.shift = size, shift
        self.attn = Attention(width, 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.size
        y = torch.roll(self.norm(x), shifts=(-self.shift, -self.shift), dims=(1, 2))
        y = y.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        y = self.attn(y).view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return x + torch.roll(y, shifts=(self.shift, self.shift), dims=(1, 2))


class Swin(nn.Module):
    """Windows of 4x4 cells, then the same shifted by half; four cells merge into one between them and the head."""

    def __init__(self, width: int = 16, channels: int = 3, classes: int = 10):
        super().__init__()
        self.embed = nn.Conv2d(channels, width, 4, 4)
        self.windows = nn.Sequential(WindowAttention(width, 4, 0), WindowAttention(width, 4, 2))
        self.reduction, self.norm = nn.Linear(4 * width, 2 * width, bias=False), nn.LayerNorm(4 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.windows(self.embed(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.reduction(self.norm(x)).mean((1, 2)))

"""A transformer block equals torch's encoder layer that normalizes first."""

import pytest
import torch
from reference_rules import DOUBLE, crowded, shuffled
from torch import nn

from inrbridge.domains import Box, Sphere
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import (
    BasisFunction,
    GlobalIntegral,
    LayerNorm,
    Sampled,
    Sequential,
    Shift,
    Tokenize,
    TransformerBlock,
    use_generator,
)
from inrbridge.sampling import grid, lattice

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def encoder(dtype=DOUBLE, **options):
    layer = nn.TransformerEncoderLayer(8, 2, 12, norm_first=True, batch_first=True, dtype=dtype, **({"dropout": 0.0} | options))
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "gelu"}, {"activation": nn.functional.silu}, {"bias": False}],
    ids=["plain", "gelu", "silu", "no bias"],
)
@pytest.mark.parametrize("layer_norm_eps", [1e-5, 1e-2])
def test_equals_torch(layer_norm_eps, options, dtype, generator):
    theirs = encoder(dtype, layer_norm_eps=layer_norm_eps, **options)
    ours = TransformerBlock.from_discrete(theirs)
    points = lattice(Box.unit(2), 16, dtype=dtype)
    values = torch.randn(3, 16, 8, generator=generator, dtype=dtype)
    mine, other = values.clone().requires_grad_(), values.clone().requires_grad_()
    out, expected = ours(Sampled(points, mine)).values, theirs(other)
    torch.testing.assert_close(out, expected, rtol=0, atol=TOLERANCE[dtype] * 10)
    out.sum().backward(), expected.sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=TOLERANCE[dtype] * 100)
    ours.eval(), theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(Sampled(points, values)).values, theirs(values), rtol=0, atol=TOLERANCE[dtype] * 10)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_is_its_two_halves_added(generator):
    block = TransformerBlock(8, 2, hidden=12, generator=generator).double()
    sampled = Sampled(crowded(Sphere(), 20), torch.randn(2, 20, 8, generator=generator, dtype=DOUBLE))
    middle = sampled.values + block.attention(block.norm1(sampled)).values
    expected = middle + block.mlp(block.norm2(sampled.with_values(middle))).values
    torch.testing.assert_close(block(sampled).values, expected)
    points, order = shuffled(sampled.discretization)
    torch.testing.assert_close(block(Sampled(points, sampled.values[:, order])).values, expected[:, order])
    torch.testing.assert_close(block(sampled.with_values(sampled.values[1:])).values, expected[1:])


def test_a_context_is_what_it_attends_to(generator):
    block = TransformerBlock(8, 2, context_channels=3, generator=generator).double()
    sampled = Sampled(crowded(Sphere(), 20), torch.randn(2, 20, 8, generator=generator, dtype=DOUBLE))
    context = Sampled(lattice(Box.unit(2), 10, dtype=DOUBLE), torch.randn(2, 10, 3, generator=generator, dtype=DOUBLE))
    middle = sampled.values + block.attention(block.norm1(sampled), context).values
    expected = middle + block.mlp(block.norm2(sampled.with_values(middle))).values
    torch.testing.assert_close(block(sampled, context).values, expected)


def test_dropout_comes_from_the_generator(generator):
    block = TransformerBlock(8, 2, dropout=0.3, generator=generator)
    sampled = Sampled(lattice(Box.unit(2), 16), torch.randn(2, 16, 8, generator=generator))
    use_generator(block, torch.Generator().manual_seed(0))
    first = block(sampled).values
    assert not torch.equal(first, block(sampled).values)
    use_generator(block, torch.Generator().manual_seed(0))
    assert torch.equal(first, block(sampled).values)
    block.eval()
    assert torch.equal(block(sampled).values, block(sampled).values)
    block.train()
    use_generator(block, None)
    with pytest.raises(ConfigError, match="use_generator"):
        block(sampled)


def test_the_rate_of_dropout_is_carried_over():
    block = TransformerBlock.from_discrete(encoder(dropout=0.25), keys=7)
    assert block.dropout.p == 0.25 and block.attention.keys == 7


@pytest.mark.parametrize("dim", [1, 2, 3])
@torch.no_grad()
def test_a_whole_vision_transformer(dim, generator):
    """Patches, learned positions, encoder layers, norm, mean, head: torch's own layers on the grid, and nearly so off it."""
    cells, patch = (4, 3, 2)[:dim], (2, 4, 3)[:dim]
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1](2, 8, patch, patch).double()
    positions = torch.randn(8, *cells, generator=generator, dtype=DOUBLE)
    layers, norm, head = [encoder() for _ in range(2)], nn.LayerNorm(8).double(), nn.Linear(8, 5).double()
    box = Box.centered(dim)
    last = LayerNorm(8).double()
    last.load_state_dict(norm.state_dict())
    net = Sequential(
        Tokenize.from_discrete(conv, cells), Shift(BasisFunction.through(positions, box)),
        *(TransformerBlock.from_discrete(layer) for layer in layers), last, GlobalIntegral(), head,
    )  # fmt: skip

    def field(x):
        return torch.stack([torch.sin(2 * x.sum(1)), torch.cos(x[:, 0]) + x[:, -1]], 1)[None]

    points = grid(box, tuple(a * b for a, b in zip(cells, patch, strict=True)), dtype=DOUBLE)
    values = torch.cat([field(points.points), torch.randn(1, len(points), 2, generator=generator, dtype=DOUBLE)])
    image = values.unflatten(1, points.structure.shape).movedim(-1, 1)
    tokens = (conv(image) + positions).flatten(2).transpose(1, 2)
    for layer in layers:
        tokens = layer(tokens)
    expected = head(norm(tokens).mean(1))
    torch.testing.assert_close(net(Sampled(points, values)), expected, rtol=0, atol=1e-10)
    other = lattice(box, 2**12, dtype=DOUBLE)
    assert (net(Sampled(other, field(other.points)))[0] - expected[0]).abs().max() < 0.05 * expected[0].abs().max()


def test_gradients(generator):
    block = TransformerBlock(4, 2, hidden=3, activation="tanh", generator=generator).double()
    points = crowded(Sphere(), 4)
    values = torch.randn(1, 4, 4, generator=generator, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, *_: block(Sampled(points, v)).values, (values, *block.parameters()))


def test_errors(generator):
    with pytest.raises(ConfigError, match="norm_first=True"):
        TransformerBlock.from_discrete(nn.TransformerEncoderLayer(8, 2))
    with pytest.raises(ConfigError, match="expected 0 <= p < 1"):
        TransformerBlock(8, 2, dropout=1.0)
    with pytest.raises(ShapeMismatch, match="Got 3 channels"):
        TransformerBlock(8, 2)(Sampled(lattice(Box.unit(2), 4), torch.zeros(1, 4, 3)))

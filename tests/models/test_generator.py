"""Nets that make fields: evaluable anywhere, and each part learns from its own loss alone."""

import math

import pytest
import torch
from torch import nn

from inrbridge import Ball, Box, Product, Sphere, Torus, sampling
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.models import GAN, VAE, build_model
from inrbridge.models.generative import frozen
from inrbridge.models.vae import squared_error
from inrbridge.nn import Sampled

BOX = Box.centered(2)
SMALL = {"widths": [8, 6], "resolution": 8, "degree": 3, "hidden": 12, "head": 6}
SMOOTH = {"upsample": "linear", "border": "reflect", "activation": "silu"}
PARTNER = {"widths": [6, 6], "strides": [1, 2], "resolution": 8, "norm": "none", "activation": "silu"}
CYLINDER = Product(Box.unit(1), Torus((1.0,)))
DOMAINS = [Box.centered(1), BOX, Box.unit(3), Ball((0.0, 0.0), 1.0), Torus((1.0, 2.0)), Sphere(), CYLINDER]


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_of(b, seed=0):
    source = chance(seed)
    return lambda width: torch.randn(b, width, generator=source)


def generator(domain=BOX, channels=1, seed=0, **options):
    return build_model("generator", domain, channels, channels, latent=4, generator=chance(seed), **{**SMALL, **options})


def gan(**options):
    parts = {"critic_options": PARTNER, "generator_options": SMALL}
    return build_model("gan", BOX, 1, 1, latent=4, generator=chance(), **parts, **options)


def vae(**options):
    parts = {"encoder_options": PARTNER, "generator_options": SMALL}
    return build_model("vae", BOX, 1, 1, latent=4, generator=chance(), **parts, **options)


def real_fields(n=64, b=5, clustered=False):
    points = sampling.shrunk(BOX, n, chance(3), weights="density") if clustered else sampling.lattice(BOX, n, chance(3))
    phases = torch.rand(b, 1, 1, generator=chance(4))
    return Sampled(points, torch.sin(3 * points.points[None, :, :1] + 6 * phases))


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_a_vector_becomes_a_field_on_every_domain(domain):
    net = generator(domain, 2)
    vectors = torch.randn(3, 4, generator=chance(1))
    features = net.features(vectors, sampling.sobol(domain, 256, chance(2)))
    at_samples = net.read(features, features.discretization.points)
    elsewhere = net.read(features, sampling.halton(domain, 50, chance(5)).points)
    assert at_samples.shape == (3, 256, 2) and elsewhere.shape == (3, 50, 2) and bool(elsewhere.isfinite().all())
    assert at_samples.std(0).mean() > 0.05  # other vectors, other fields, before any training
    own = torch.stack([features.discretization.points[i : i + 20] for i in (0, 40, 80)])  # points of its own for each field
    expected = torch.stack([at_samples[j, i : i + 20] for j, i in enumerate((0, 40, 80))])
    torch.testing.assert_close(net.read(features, own), expected, rtol=1e-3, atol=1e-3)


def test_the_field_settles_as_the_points_of_the_layers_grow():
    """Law Q5: on finer points the generator makes the same field; the difference falls."""
    net, vectors = generator(**SMOOTH).double(), torch.randn(4, 4, generator=chance(1), dtype=torch.float64)
    coords = sampling.grid(BOX, 400).points.double()

    @torch.no_grad()
    def field(n):
        return net.read(net.features(vectors, sampling.lattice(BOX, n, chance(7), dtype=torch.float64)), coords)

    reference = field(2**13)
    errors = [float((field(n) - reference).square().mean().sqrt()) for n in (2**7, 2**9, 2**11)]
    assert errors[0] > 1.8 * errors[2] and errors[0] > errors[1] > errors[2] and errors[2] < 0.35 * float(reference.std())


def test_output_ranges_options_and_rebuilding():
    vectors = 3 * torch.randn(6, 4, generator=chance(1))
    for output, low, high in (("sigmoid", 0, 1), ("tanh", -1, 1), ("softplus", 0, math.inf)):
        values = generator(output=output)(vectors).values
        assert low <= values.min() and values.max() <= high
    net = generator(convolutions=2, output="sigmoid")
    config = net.config()
    again = build_model(config["name"], BOX, config["in_channels"], config["classes"], generator=chance(), **config["options"])
    assert torch.equal(again(vectors).values, net(vectors).values)
    assert not torch.equal(generator(seed=9).state_dict()["mapping.0.weight"], net.state_dict()["mapping.0.weight"])


def test_gradcheck_of_the_vector():
    net, points = generator(widths=[3, 2], hidden=4, head=3).double(), sampling.lattice(BOX, 16, chance(2), dtype=torch.float64)
    vectors = torch.randn(2, 4, generator=chance(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: net(z, points).values, (vectors,))


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (lambda: generator(widths=[]), ConfigError, "at least one width"),
        (lambda: generator(output="relu"), ConfigError, "sigmoid"),
        (lambda: generator(border="valid"), ConfigError, "keeps the domain"),
        (lambda: generator()(torch.zeros(2, 5)), ShapeMismatch, r"\(fields, 4\)"),
        (lambda: gan(loss="wasserstein"), ConfigError, "relativistic"),
        (lambda: gan(penalty=-1.0), ConfigError, "penalty=-1"),
        (lambda: gan(average=1.0), ConfigError, "average=1"),
        (lambda: build_model("gan", BOX, 1, 1, critic_options={"widths": [4]}), ConfigError, "BatchNorm"),
        (lambda: gan()(Sampled(sampling.grid(BOX, 4), torch.zeros(1, 4, 3)), noise_of(1)), ShapeMismatch, "3 channels"),
        (lambda: vae(beta=-0.1), ConfigError, "beta"),
        (lambda: build_model("vae", BOX, 1, 2), ShapeMismatch, "2 to generate"),
        (lambda: build_model("vae", BOX, 1, 1, generator_options={"width": 3}), ConfigError, 'Did you mean "widths"'),
    ],
)
def test_what_does_not_fit_is_said(build, error, said):
    with pytest.raises(error, match=said):
        build()


def gradients(net):
    return [(name, None if p.grad is None else p.grad.clone()) for name, p in net.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("loss", ["relativistic", "logistic", "hinge"])
def test_critic_and_generator_learn_from_their_own_loss_alone(loss):
    real, net = real_fields(), gan(loss=loss).train()

    def learned(losses):
        net.zero_grad()
        losses(net.generator(noise_of(5)(4), real.discretization)).sum().backward()
        return {p: [g for name, g in gradients(net) if name.startswith(p + ".")] for p in ("critic", "generator")}

    critic = learned(lambda made: net.critic_losses(real, made, noise_of(5, 1)))
    maker = learned(lambda made: net.generator_losses(real, made))
    both = learned(lambda made: net.critic_losses(real, made, noise_of(5, 1)) + net.generator_losses(real, made))
    assert all(g is None for g in critic["generator"]) and all(g is None for g in maker["critic"])
    for part, alone in (("critic", critic), ("generator", maker)):
        assert any(g.abs().max() > 0 for g in alone[part])
        for a, b in zip(both[part], alone[part], strict=True):
            torch.testing.assert_close(a, b)
    leaking = learned(net.critic)  # negative control: not frozen, the critic would learn from the generator's loss
    assert all(g is not None for g in leaking["critic"])


def test_the_losses_are_their_formulas():
    real, made = real_fields(), real_fields(b=5)
    made = made.with_values(made.values.flip(0) * 0.5)
    for loss in ("relativistic", "logistic", "hinge"):
        net = gan(loss=loss, penalty=0.0).train()
        f, g = net.critic(real)[:, 0], net.critic(made)[:, 0]
        expected = {
            "relativistic": (-torch.sigmoid(f - g).log(), -torch.sigmoid(g - f).log()),
            "logistic": (-torch.sigmoid(f).log() - (1 - torch.sigmoid(g)).log(), -torch.sigmoid(g).log()),
            "hinge": ((1 - f).clamp(min=0) + (1 + g).clamp(min=0), -g),
        }[loss]
        torch.testing.assert_close(net.critic_losses(real, made, noise_of(5)), expected[0])
        torch.testing.assert_close(net.generator_losses(real, made), expected[1])


class Functional(nn.Module):
    """D(f) = int f h dx: its functional derivative is h everywhere."""

    def forward(self, sampled):
        h = torch.cos(2 * sampled.discretization.points[:, 0])
        return torch.einsum("n,n,bn->b", sampled.weights, h, sampled.values[..., 0])[:, None]


@pytest.mark.parametrize("clustered", [False, True], ids=["lattice", "clustered"])
def test_the_penalty_is_the_squared_functional_derivative_on_any_points(clustered):
    """penalty / 2 int |dD/df|^2 for both fields of a pair; noise of one variance at all points gives another number."""
    net = gan(penalty=2.0, step=1e-2).train()
    net.critic = Functional()
    real = real_fields(256, 2000, clustered)
    got = float((net.critic_losses(real, real, noise_of(2000)) - math.log(2)).mean())
    exact = 2 * float(torch.cos(2 * torch.linspace(-1, 1, 4001)).square().mean())  # twice int h^2 under the normalized measure
    spread = exact * math.sqrt(2 / 4000)
    assert abs(got - exact) < 4 * spread + 0.02
    if clustered:  # negative control: the sum of squared plain derivatives, scaled by the number of points
        h = torch.cos(2 * real.discretization.points[:, 0])
        plain = 2 * 256 * float((real.weights * h).square().sum())
        assert abs(plain - exact) > 8 * spread


def test_the_divergence_and_the_error_are_their_formulas():
    net, real = vae(beta=0.5).eval(), real_fields(clustered=True)
    mean, log_variance = net.encode(real)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    made = net.generator(mean + noise_of(5)(4) * posterior.scale, real.discretization)
    w = real.discretization.weights / real.discretization.weights.sum()
    error = torch.stack([(w * (a - b).square().mean(-1)).sum() for a, b in zip(real.values, made.values, strict=True)])
    torch.testing.assert_close(net(real, noise_of(5)), error + 0.5 * divergence)
    unweighted = (real.values - made.values).square().mean((1, 2))
    assert not torch.allclose(unweighted, error, rtol=0.05)  # negative control: clustered points
    assert torch.equal(net.reconstruct(real).values, net.generator(mean, real.discretization).values)
    torch.testing.assert_close(squared_error(real, real), torch.zeros(5))


def test_the_average_follows_the_weights_and_makes_the_fields():
    net, real = gan(average=0.9).train(), real_fields()
    before = {name: value.clone() for name, value in net.averaged.state_dict().items()}
    with torch.no_grad():
        for parameter in net.generator.parameters():
            parameter += 1.0
    net(real, noise_of(5))
    for name, value in net.averaged.state_dict().items():  # the first step keeps (1 + 0) / (10 + 0)
        torch.testing.assert_close(value, before[name] + 0.9)
    vectors = torch.randn(2, 4, generator=chance(1))
    assert torch.equal(net.eval()(vectors, None, real.discretization).values, net.averaged(vectors, real.discretization).values)
    assert not any(p.requires_grad for p in net.averaged.parameters())
    assert vae().averaged is None and vae().final is not None


def test_a_frozen_net_passes_gradients_to_its_input():
    net, x = nn.Linear(3, 1), torch.ones(2, 3, requires_grad=True)
    frozen(net, x).sum().backward()
    torch.testing.assert_close(x.grad, net.weight.detach().expand(2, 3))
    assert net.weight.grad is None


def test_names():
    assert isinstance(gan(), GAN) and isinstance(vae(), VAE) and gan(critic_rate=2.0).rate_factors == {"critic": 2.0}

"""The local operators and the soft maximum have derivatives of every order, in both modes: for losses that hold gradients."""

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel

from inrbridge.domains import Box
from inrbridge.models import build_model
from inrbridge.nn import Activation, BasisConv, Conv, GlobalIntegral, MLPConv, Sampled, Sequential
from inrbridge.ops.bilinear import apply_bilinear
from inrbridge.ops.reference import local_dense
from inrbridge.ops.windows import window_logmeanexp
from inrbridge.sampling import lattice, sobol
from inrbridge.stencils import Bins, Reconstruct, build_stencil, kernel_nodes

BOX = Box.centered(2)
SEEDS = ((-0.3, 0.0), (0.3, 0.1), (0.0, -0.3))


def made(kind, generator, groups=1):
    """A stencil on few points, with values and a kernel that ask for gradients."""
    x = sobol(BOX, 24, generator, dtype=torch.float64)
    if kind == "bins":
        stencil = build_stencil(Bins(SEEDS, (0.6, 0.6)), x)
    else:
        stencil = build_stencil(Reconstruct(kernel_nodes((3, 3), (0.4, 0.4)), (0.4, 0.4)), x)
    values = torch.randn(2, 24, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    kernel = torch.randn(stencil.nodes, 2 // groups, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    apply = stencil.apply if kind == "bins" else lambda v, w: stencil.apply(v, w, groups)
    return stencil, apply, values, kernel


@pytest.mark.parametrize(("kind", "groups"), [("reconstruct", 1), ("reconstruct", 2), ("bins", 1)])
def test_second_derivatives_and_forward_mode(kind, groups, generator):
    _, apply, values, kernel = made(kind, generator, groups)
    assert gradcheck(apply, (values, kernel), fast_mode=True, check_forward_ad=True)
    assert gradgradcheck(apply, (values, kernel), fast_mode=True, check_fwd_over_rev=True)


@pytest.mark.parametrize("kind", ["reconstruct", "bins"])
def test_third_derivatives_equal_those_of_the_dense_definition(kind, generator):
    stencil, apply, values, kernel = made(kind, generator)
    probe = torch.randn(2, 24, 2, dtype=torch.float64, generator=generator)

    def third(operator):
        y = operator(values, kernel).tanh() * probe  # something with derivatives of every order
        (first,) = torch.autograd.grad(y.sum(), values, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), kernel, create_graph=True)
        return torch.autograd.grad(second.square().sum(), (values, kernel))

    for fast, slow in zip(third(apply), third(lambda v, w: local_dense(v, stencil.dense(), w)), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["reconstruct", "bins"])
@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
def test_gradients_asked_for_alone_together_and_with_a_graph_are_equal(kind, wanted, generator):
    _, apply, values, kernel = made(kind, generator)
    inputs = [t.detach().requires_grad_(w) for t, w in zip((values, kernel), wanted, strict=True)]
    asked = [t for t in inputs if t.requires_grad]
    loss = apply(*inputs).square().sum()
    plain = torch.autograd.grad(loss, asked, retain_graph=True)
    graphed = torch.autograd.grad(loss, asked, create_graph=True)
    assert all(g.requires_grad for g in graphed) and not any(g.requires_grad for g in plain)
    torch.testing.assert_close(plain, tuple(g.detach() for g in graphed))


def test_functional_transforms_take_the_operator(generator):
    _, apply, values, kernel = made("reconstruct", generator)
    tangent = torch.randn(kernel.shape, dtype=torch.float64, generator=generator)
    _, pushed = torch.func.jvp(lambda w: apply(values, w), (kernel,), (tangent,))
    torch.testing.assert_close(pushed, apply(values, tangent))  # linear in the kernel
    by_func = torch.func.grad(lambda w: apply(values, w).square().sum())(kernel)
    torch.testing.assert_close(by_func, torch.autograd.grad(apply(values, kernel).square().sum(), kernel)[0])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(values, torch.ones_like(values))
        both = forward_ad.unpack_dual(apply(dual, kernel)).tangent
    torch.testing.assert_close(both, apply(torch.ones_like(values), kernel))


def test_the_soft_maximum_of_windows(generator):
    values = torch.randn(2, 12, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    index = torch.randint(12, (7, 4), generator=generator)
    weight = torch.rand(7, 4, generator=generator, dtype=torch.float64)
    weight = weight / weight.sum(1, keepdim=True)

    def soft(v):
        return window_logmeanexp(v, index, weight, 3.0)

    assert gradcheck(soft, values, fast_mode=True, check_forward_ad=True)
    assert gradgradcheck(soft, values, fast_mode=True)
    gathered = values[:, index]  # (b, m, t, c)
    direct = ((3.0 * gathered).exp() * weight[..., None]).sum(2).log() / 3.0
    torch.testing.assert_close(soft(values), direct)


@pytest.mark.parametrize("layer", [Conv, BasisConv, MLPConv])
def test_a_gradient_penalty_on_a_net_trains_it(layer, generator):
    width = {"half_width": 0.5, "bins": 8} if layer is MLPConv else {"spacing": 0.3}
    net = Sequential(layer(1, 4, **width, generator=generator), Activation("tanh"), layer(4, 4, **width, generator=generator),
                     GlobalIntegral()).double()  # fmt: skip
    x = sobol(BOX, 64, generator, dtype=torch.float64)
    values = torch.randn(2, 64, 1, dtype=torch.float64, generator=generator, requires_grad=True)
    weights = list(net.parameters())

    def penalty():
        (slope,) = torch.autograd.grad(net(Sampled(x, values)).sum(), values, create_graph=True)
        return slope.square().sum()

    gradient = torch.autograd.grad(penalty(), weights, allow_unused=True)
    direction = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradient, strict=True)]
    expected = sum(g.square().sum() for g in direction)
    before, step = penalty().detach(), 1e-5
    with torch.no_grad():
        for w, g in zip(weights, direction, strict=True):
            w -= step * g / expected.sqrt()
    after = penalty().detach()
    assert float((before - after) / step) == pytest.approx(float(expected.sqrt()), rel=1e-2)


@pytest.mark.parametrize("name", ["convnet", "resnet", "unet", "inr-net-2", "transformer"])
def test_gradient_penalties_reach_the_weights_of_every_architecture(name, generator):
    net = build_model(name, domain=BOX, in_channels=1, classes=2, generator=generator).eval()
    x = lattice(BOX, 256, generator)
    values = torch.randn(1, 256, 1, generator=generator, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):  # the other kernels of torch's attention have no second derivative
        output = net(Sampled(x, values))
        output = output.values if isinstance(output, Sampled) else output
        (slope,) = torch.autograd.grad(output.square().sum(), values, create_graph=True)
        slope.square().sum().backward()
    reached = [p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters()]
    assert sum(reached) >= 0.9 * len(reached)  # all but the last biases, perhaps


def test_an_operator_that_forgets_a_derivative_is_found_out():
    # negative control of the checks above
    class Forgetful:
        def output(self, values, kernel):
            return values * kernel

        def values_gradient(self, kernel, cotangent):
            return kernel * cotangent

        def kernel_gradient(self, values, cotangent):
            return torch.zeros_like(values)

        def gradients(self, values, kernel, cotangent):
            return self.values_gradient(kernel, cotangent), values * cotangent

    pair = tuple(torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(lambda v, w: apply_bilinear(Forgetful(), v, w), pair)  # right at first order
    assert not gradgradcheck(lambda v, w: apply_bilinear(Forgetful(), v, w), pair, raise_exception=False)

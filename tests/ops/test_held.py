"""What a layer holds and waits for: nothing but its input and kernel until backward, and no number of a tensor on a device."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from inrbridge.domains import Box
from inrbridge.models import build_model
from inrbridge.nn import BasisConv, Conv, MLPConv, Sampled
from inrbridge.ops.dispatch import using
from inrbridge.sampling import lattice, sobol

BOX = Box.centered(2)
LAYERS = {
    "conv": Conv(8, 6, spacing=0.2),
    "basis": BasisConv(8, 6, spacing=0.2),
    "bins": MLPConv(8, 6, half_width=0.3, bins=16),
    "pairs": MLPConv(8, 6, half_width=0.3, bins=None),
}


@pytest.mark.parametrize("path", ["plain", "any"])
@pytest.mark.parametrize("name", list(LAYERS))
def test_neighbourhoods_are_gathered_again_rather_than_held(name, path, generator):
    layer, points = LAYERS[name], sobol(BOX, 256, generator)
    values = torch.randn(256, 32, 8, generator=generator).transpose(0, 1).requires_grad_()
    held = {}

    def hold(tensor):
        held[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        if path == "plain":
            with using("plain"):
                out = layer(Sampled(points, values)).values
        else:
            out = layer(Sampled(points, values)).values
    kernels = sum(size for size in held.values() if size != values.numel())
    assert values.data_ptr() in held  # the input itself, no copy of it
    assert list(held.values()).count(values.numel()) == 1
    pairs = out.shape[1] * 9  # about as many as nodes
    assert kernels < pairs * values.shape[0] * values.shape[2]  # not even one number for each neighbour, field and channel


@pytest.mark.parametrize("name", ["inr-net-4", "resnet", "unet"])
def test_a_training_step_waits_for_no_device(name, generator):
    # a fake tensor has no numbers: whatever reads one, as `.item()` and `.cpu()` do on a device, raises
    net = build_model(name, domain=BOX, in_channels=1, classes=3, generator=generator)
    points, values = lattice(BOX, 256, generator), torch.randn(2, 256, 1, generator=generator)
    net(Sampled(points, values))  # geometry is found once, by numbers
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        result = net(Sampled(points, mode.from_tensor(values)))
        logits = result if isinstance(result, torch.Tensor) else result.values
        logits.square().sum().backward()
    assert all(p.grad.shape == p.shape for p in net.parameters() if p.grad is not None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_step_is_replayed_as_a_cuda_graph(generator):
    net = build_model("inr-net-4", domain=BOX, in_channels=3, classes=10, generator=generator).cuda()
    points = lattice(BOX, 1024, generator).to("cuda")
    values = torch.randn(1024, 48, 3, generator=generator).cuda().transpose(0, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    start = {key: value.clone() for key, value in net.state_dict().items()}

    def step():
        optimizer.zero_grad()
        loss = net(Sampled(points, values)).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    expected = [float(step()) for _ in range(4)]
    net.load_state_dict(start)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    net.load_state_dict(start)
    found = []
    for _ in range(4):
        graph.replay()
        found.append(float(loss))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)

"""BatchNorm over several processes: two gloo processes with unequal shares equal one with all fields."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from inrbridge.domains import Box
from inrbridge.nn import BatchNorm, Sampled, norm
from inrbridge.nn.processes import are_several
from inrbridge.sampling import lattice, shrunk

pytestmark = pytest.mark.slow  # two processes start

SHARES = (slice(0, 3), slice(3, 8))  # fields of the processes
CASES = ("even", "clustered", "each by itself")


def minibatch(case: str):
    """Eight fields, and what their outputs are multiplied by to give a loss."""
    chance = torch.Generator().manual_seed(3)
    sampler = partial(shrunk, weights="density") if case == "clustered" else lattice
    points = sampler(Box.centered(2), 64, chance, dtype=torch.float64)
    values, factor = (torch.randn(8, 64, 4, dtype=torch.float64, generator=chance) for _ in range(2))
    return points, values + torch.arange(8.0)[:, None, None], factor  # the shares differ in their means


def trained(case: str, share: slice) -> tuple[BatchNorm, dict]:
    """Two training steps on a share of the fields: the layer, and the last outputs and gradients of the inputs."""
    layer = BatchNorm(4).double()
    points, values, factor = minibatch(case)
    for _ in range(2):
        inputs = values[share].clone().requires_grad_()
        out = layer(Sampled(points, inputs)).values
        (out * factor[share]).sum().backward()
    return layer, {"out": out.detach(), "gradient": inputs.grad}


def evaluated(case: str, layer: BatchNorm) -> torch.Tensor:
    points, values, _ = minibatch(case)
    return layer.eval()(Sampled(points, values[:1])).values.detach()


def work(rank: int, file: str, results) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    try:
        assert are_several()
        for case in CASES:
            norm.are_several = are_several if case != "each by itself" else lambda: False
            layer, found = trained(case, SHARES[rank])
            for p in layer.parameters():
                dist.all_reduce(p.grad)
            found |= layer.state_dict() | {f"{name}.grad": p.grad for name, p in layer.named_parameters()}
            if rank == 0:  # in evaluation nobody is waited for
                found["evaluated"] = evaluated(case, layer)
            results[case, rank] = {name: tensor.detach().numpy() for name, tensor in found.items()}
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes found: (case, rank) -> tensors."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(work, (str(tmp_path_factory.mktemp("meet") / "file"), results), nprocs=2)
        return {key: {name: torch.as_tensor(array) for name, array in found.items()} for key, found in results.items()}


@pytest.mark.parametrize("case", ["even", "clustered"])
def test_two_processes_equal_one(case, both):
    layer, expected = trained(case, slice(None))
    tolerance = {"atol": 1e-10, "rtol": 1e-10}
    for rank, share in enumerate(SHARES):
        found = both[case, rank]
        for name in ("out", "gradient"):
            torch.testing.assert_close(found[name], expected[name][share], **tolerance)
        for name, tensor in layer.state_dict().items():
            torch.testing.assert_close(found[name], tensor.detach(), **tolerance)
        for name, p in layer.named_parameters():
            torch.testing.assert_close(found[f"{name}.grad"], p.grad, **tolerance)
    torch.testing.assert_close(both[case, 0]["evaluated"], evaluated(case, layer), **tolerance)


def test_negative_control_each_by_itself_differs(both):
    _, expected = trained("even", slice(None))
    assert (both["each by itself", 0]["out"] - expected["out"][SHARES[0]]).abs().max() > 0.1

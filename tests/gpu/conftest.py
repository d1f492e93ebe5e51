"""Where the kernels of these tests run: on a GPU, or on the CPU where Triton interprets them (TRITON_INTERPRET=1)."""

import pytest
import torch

from inrbridge.gpu.precision import has_triton, interprets


@pytest.fixture
def device() -> torch.device:
    place = torch.device("cpu" if interprets() else "cuda")
    if not has_triton(place):
        pytest.skip("needs triton and a CUDA device")
    return place


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["float32", "float16", "bfloat16"])
def dtype(request) -> torch.dtype:
    if interprets() and request.param == torch.bfloat16:
        pytest.skip("Triton's interpreter does not multiply in bfloat16")
    return request.param

"""Try the blocks of the GPU's kernel of stacked networks: 48 SIRENs at 1024 points, forward and with gradients.

python gpu_networks.py

Times of recorded graphs, and of eager calls. The anchor is a batched product and a sine for each layer.
"""

import itertools
import math

import torch
from gpu_blocks import allow_tf32, timed, timed_eagerly

from inrbridge.gpu import perceptron


def main() -> None:
    """48 networks 2-256-256-256-256-3 at 1024 points."""
    allow_tf32()
    b, n, widths = 48, 1024, (2, *(256,) * 4, 3)
    for dtype in (torch.bfloat16, torch.float32):
        generator = torch.Generator(device="cuda").manual_seed(0)
        layers = []
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            bound = 1 / inputs if index == 0 else math.sqrt(6 / inputs) / 30
            w, v = (torch.rand(b, *size, generator=generator, device="cuda") * 2 - 1 for size in ((outputs, inputs), (outputs,)))
            kind = "sine" if index < len(widths) - 2 else "identity"
            layers.append(perceptron.Layer((w * bound).to(dtype), (v / math.sqrt(inputs)).to(dtype), kind, 30.0))
        x = torch.rand(n, 2, generator=generator, device="cuda") * 2 - 1
        expected = x.double().expand(b, n, 2)
        for layer in layers:
            expected = torch.baddbmm(layer.bias.double()[:, None], expected, layer.weight.double().mT)
            expected = torch.sin(30 * expected) if layer.kind == "sine" else expected
        flops = 2.0 * b * n * sum(i * o for i, o in itertools.pairwise(widths))

        def plain(x=x, layers=layers, dtype=dtype):
            y = x.to(dtype).expand(b, n, 2)
            for layer in layers:
                y = torch.baddbmm(layer.bias[:, None], y, layer.weight.mT)
                y = y.mul_(layer.omega).sin_() if layer.kind == "sine" else y
            return y

        theirs = timed(plain)
        error = float((plain().double() - expected).norm() / expected.norm())
        print(f"\nSIRENs {dtype}: baddbmm and sine {theirs:.4f} ms, {flops / theirs / 1e9:.0f} TFLOP/s, error {error:.1e}, "
              f"eager {timed_eagerly(plain):.4f}")  # fmt: skip
        kept_blocks = perceptron._WIDE[dtype.itemsize]
        tried = [kept_blocks._replace(points=p, outputs=o, inputs=i, warps=w, stages=s, registers=r) for p, o, i, w, s, r in (
            (128, 128, 64, 8, 3, 128), (128, 128, 64, 8, 3, 255), (128, 128, 64, 8, 2, 128), (64, 128, 64, 4, 3, 128),
            (64, 128, 64, 4, 3, 168), (128, 64, 64, 4, 3, 168), (128, 64, 64, 4, 3, 128), (128, 64, 64, 8, 3, 80),
            (128, 256, 64, 16, 3, 128), (64, 256, 64, 8, 3, 128), (128, 128, 128, 8, 2, 128),
        )]  # fmt: skip
        for blocks in tried:
            try:
                perceptron._WIDE[dtype.itemsize] = blocks
                y, _ = perceptron.forward(x, layers, False)
                error = float((y.double() - expected).norm() / expected.norm())
                ours = timed(lambda x=x, layers=layers: perceptron.forward(x, layers, False))
                grad = torch.randn_like(y)

                def both(x=x, layers=layers, grad=grad):
                    _, kept = perceptron.forward(x, layers, True)
                    return perceptron.backward(x, layers, kept, grad, True, False)

                print(f"  {ours:.4f} ms = {ours / theirs:.2f} x, {flops / ours / 1e9:.0f} TFLOP/s, error {error:.1e}, eager "
                      f"{timed_eagerly(lambda x=x, layers=layers: perceptron.forward(x, layers, False)):.4f}, with gradients "
                      f"{timed(both):.4f}: {blocks}", flush=True)  # fmt: skip
            except Exception as failure:
                print(f"  failed {blocks}: {type(failure).__name__}: {str(failure)[:160]}", flush=True)
        perceptron._WIDE[dtype.itemsize] = kept_blocks


if __name__ == "__main__":
    with torch.no_grad():
        main()

"""How fast a result that integrates converges as points are added: the slope of log RMS error against log N (law Q2)."""

import torch

from inrbridge.sampling import get_sampler

SIZES = (256, 1024, 4096)


@torch.no_grad()
def rates(output, domain, sampler, sizes=SIZES, scrambles=12, truth=None):
    """Slope and RMS errors of output(discretization), relative to the size of the truth.

    `truth` is a tensor, or comes from eight randomized Sobol sets four times as large as the largest size.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(kind, n):
        return output(get_sampler(kind)(domain, n, generator, dtype=torch.float64))

    if truth is None:
        truth = torch.stack([draw("sobol", 4 * max(sizes)) for _ in range(8)]).mean(0)
    errors = [torch.stack([draw(sampler, n) - truth for _ in range(scrambles)]).square().mean().sqrt() for n in sizes]
    errors = torch.stack(errors) / truth.square().mean().sqrt()
    x = torch.tensor(sizes, dtype=torch.float64).log2()
    y = errors.log2()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return float(slope), errors

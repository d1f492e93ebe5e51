"""Floor 2: evenly spread points for measures that no formula gives."""

from __future__ import annotations

import torch
from torch import Tensor

from inrbridge.domains.base import Domain

PROBES = 2**16  # relative error of a measure about 1e-3


def probe(domain: Domain, n: int = PROBES) -> tuple[Tensor, Tensor]:
    """Return n Sobol' points (n, d) of a domain's envelope and their shares (n,), which sum to 1: its uniform measure."""
    engine = torch.quasirandom.SobolEngine(domain.envelope.unit_dim)
    # Half of the finest spacing off the origin, so that no point lies on a border.
    unit = engine.draw(n, dtype=torch.float64) + 0.5 / n
    jacobian = domain.envelope.unit_jacobian(unit)
    shares = torch.full((n,), 1.0 / n, dtype=torch.float64) if jacobian is None else jacobian / jacobian.sum()
    return domain.envelope.from_unit(unit), shares

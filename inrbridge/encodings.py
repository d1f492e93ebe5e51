"""Floor 1: fixed features of coordinates and directions, in the orders in which code bases write them down.

Files store the layers that read these features, never their order: the order is part of a format's dialect.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inrbridge.errors import ConfigError, ShapeMismatch

_DEGREES = 8  # of spherical harmonics; no known writer goes beyond


def frequency_encoding(x: Tensor, frequencies: Tensor, order: str = "fsc", *, raw: str | None = None,
                       cosine_first: bool = False, shifted: bool = False) -> Tensor:  # fmt: skip
    """Return sines and cosines of every coordinate at every frequency (Mildenhall et al. 2020, eq. 4).

    Args:
        x: (..., d) coordinates.
        frequencies: (n,) angular frequencies, such as 2^k or pi 2^k.
        order: how the columns are nested, outermost first: f for frequency, s for sine and cosine, c for coordinate.
            "fsc" is x -> sin(f0 x0), sin(f0 x1), .., cos(f0 x0), ..; "cfs" keeps the columns of one coordinate together.
        raw: where the coordinates themselves go: "first", "last", "each" (before the columns of each coordinate; the order
            must begin with c), or None for nowhere.
        cosine_first: cosines before sines.
        shifted: compute cos(v) as sin(v + pi / 2), which rounding makes another number at high frequencies; networks that
            learnt one do not fit the other.

    Returns:
        (..., 2 d n), or (..., d (2 n + 1)) with the coordinates.

    >>> frequency_encoding(torch.zeros(5, 3), 2.0 ** torch.arange(10), raw="first").shape
    torch.Size([5, 63])
    """
    if sorted(order) != ["c", "f", "s"] or raw not in (None, "first", "last", "each") or (raw == "each" and order[0] != "c"):
        raise ConfigError(
            f'Got order "{order}" with raw={raw!r}, expected the letters f, s and c once each, and raw "first", "last", '
            '"each" (with an order that begins with c) or None.'
        )
    phase = x.unsqueeze(-1) * frequencies.to(dtype=x.dtype, device=x.device)  # (..., c, f)
    cosine = (phase + math.pi / 2).sin() if shifted else phase.cos()
    waves = (cosine, phase.sin()) if cosine_first else (phase.sin(), cosine)
    stacked = torch.stack(waves, -1)  # (..., c, f, s)
    lead = x.ndim - 1
    place = {"c": lead, "f": lead + 1, "s": lead + 2}
    stacked = stacked.permute(*range(lead), *(place[letter] for letter in order))
    if raw == "each":
        return torch.cat([x.unsqueeze(-1), stacked.flatten(lead + 1)], -1).flatten(lead)
    columns = stacked.flatten(lead)
    return columns if raw is None else torch.cat([x, columns] if raw == "first" else [columns, x], -1)


def spherical_harmonics(directions: Tensor, degree: int, signs: str = "condon-shortley") -> Tensor:
    """Return the real spherical harmonics of degrees 0 to `degree` - 1 at unit vectors.

    The columns run by degree l, then m = -l..l: 0.282, then -0.489 y, 0.489 z, -0.489 x, ... with the signs of Condon and
    Shortley, factor (-1)^m, as tiny-cuda-nn and svox2 have them.

    Args:
        directions: (..., 3) unit vectors; others give the homogeneous polynomials that agree on the sphere.
        degree: number of degrees, 1 to 8; `degree`^2 columns.
        signs: "plain" leaves the factor (-1)^m out.

    Returns:
        (..., degree^2).
    """
    if directions.shape[-1:] != (3,):
        raise ShapeMismatch(f"Got directions of shape {tuple(directions.shape)}, expected (..., 3).")
    if not 1 <= degree <= _DEGREES or signs not in ("condon-shortley", "plain"):
        raise ConfigError(f'Got degree {degree}, signs "{signs}", expected 1 to {_DEGREES}, and "condon-shortley" or "plain".')
    x, y, z = directions.unbind(-1)
    one = torch.ones_like(x)
    # (x + i y)^m = cosine_m + i sine_m
    cosine, sine = [one], [torch.zeros_like(x)]
    for _ in range(degree - 1):
        cosine.append(x * cosine[-1] - y * sine[-1])
        sine.append(x * sine[-1] + y * cosine[-2])
    # P[l, m] = the associated Legendre function over sin^m, a polynomial in z; recurrences in l
    legendre: dict[tuple[int, int], Tensor] = {}
    for m in range(degree):
        legendre[m, m] = one * math.prod(range(1, 2 * m, 2))  # (2m - 1)!!
        if m + 1 < degree:
            legendre[m + 1, m] = (2 * m + 1) * z * legendre[m, m]
        for l in range(m + 2, degree):  # noqa: E741
            legendre[l, m] = ((2 * l - 1) * z * legendre[l - 1, m] - (l + m - 1) * legendre[l - 2, m]) / (l - m)
    columns = []
    for l in range(degree):  # noqa: E741
        for m in range(-l, l + 1):
            k = abs(m)
            scale = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - k) / math.factorial(l + k))
            scale *= math.sqrt(2) if k else 1
            scale *= (-1) ** k if signs == "condon-shortley" else 1
            columns.append(scale * legendre[l, k] * (sine[k] if m < 0 else cosine[k]))
    return torch.stack(columns, -1)

"""Floor 4: samplers make discretizations of a domain (Wang & Golland 2023, section 3.1 and appendix A).

`sampler(domain, n, generator=None, *, dtype=None, device=None) -> Discretization`. Without a generator nothing is
random; with one, the points are randomized, and one seed of a CPU generator gives the same points on every device: they are
computed in float64 on the CPU, then cast and moved. Weights sum to the domain's measure.

Every domain is served: on a `Manifold` the charts take turns and the weights are the areas that the points stand for; on a
`Weighted` domain the weights follow its density.

`shrunk`, `importance` and `points` take further named options; `points(domain, coords)` takes your own points for n.
"""

from collections.abc import Callable

from inrbridge.discretization import Discretization
from inrbridge.errors import unknown_name
from inrbridge.sampling.cells import grid
from inrbridge.sampling.nested import halton, lattice, sobol, uniform
from inrbridge.sampling.weighted import importance, points, shrunk

__all__ = [
    "get_sampler",
    "grid",
    "halton",
    "importance",
    "lattice",
    "points",
    "sampler_names",
    "shrunk",
    "sobol",
    "uniform",
]

_SAMPLERS: dict[str, Callable[..., Discretization]] = {
    sampler.__name__: sampler for sampler in (lattice, sobol, halton, grid, uniform, shrunk, importance, points)
}


def sampler_names() -> list[str]:
    """Return the names that `get_sampler` knows, the usual choice first."""
    return list(_SAMPLERS)


def get_sampler(name: str) -> Callable[..., Discretization]:
    """Return the sampler of a name.

    >>> get_sampler("lattice") is lattice
    True
    """
    if name not in _SAMPLERS:
        raise unknown_name("sampler", name, _SAMPLERS)
    return _SAMPLERS[name]

"""Floor 4: samplers make discretizations of a domain (Wang & Golland 2023, section 3.1 and appendix A).

`sampler(domain, n, generator=None, *, dtype=None, device=None) -> Discretization`. Without a generator nothing is
random; with one, the points are randomized and the same seed gives the same points on every device. Points are computed
in float64 on the CPU, then cast; weights sum to the domain's measure.
"""

from collections.abc import Callable

from inrbridge.discretization import Discretization
from inrbridge.errors import unknown_name
from inrbridge.sampling.cells import grid
from inrbridge.sampling.nested import halton, lattice, sobol, uniform

__all__ = ["get_sampler", "grid", "halton", "lattice", "sampler_names", "sobol", "uniform"]

_SAMPLERS: dict[str, Callable[..., Discretization]] = {
    sampler.__name__: sampler for sampler in (lattice, sobol, halton, grid, uniform)
}


def sampler_names() -> list[str]:
    """Return the names that `get_sampler` knows, the usual choice first."""
    return list(_SAMPLERS)


def get_sampler(name: str) -> Callable[..., Discretization]:
    """Return the sampler of a name.

    >>> get_sampler("latice")
    Traceback (most recent call last):
    ...
    inrbridge.errors.UnknownName: There is no sampler "latice"; expected one of: ... Did you mean "lattice"?
    """
    if name not in _SAMPLERS:
        raise unknown_name("sampler", name, _SAMPLERS)
    return _SAMPLERS[name]

"""Floor 4: adaptive quadrature with an error bound, all boxes of a round at once (Wang & Golland 2023, footnote 4).

The unit cube is cut into boxes. Each holds an estimate and a bound of its error; the boxes whose bounds matter most are
halved together, and the field is asked once for all the points of a round.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.quadrature.pullback import CHUNK, Pullback
from inrbridge.quadrature.result import Integral, Target
from inrbridge.quadrature.rules import Rule, rule_of

FIRST_CUTS = {1: 16, 2: 4, 3: 4}  # boxes along each axis to begin with; 2 in more dimensions
CAUTION = 20.0  # times a misfit must shrink from one degree to the next before it is believed


@dataclass(frozen=True, eq=False)
class Boxes:
    """m boxes of the unit cube, with the integral and the bound of its error in each."""

    center: Tensor  # (m, d)
    half: Tensor  # (m, d)
    integral: Tensor  # (m, c)
    bound: Tensor  # (m, c)
    curvature: Tensor  # (m, d, c): how much the integrand bends along each axis

    def part(self, chosen: Tensor) -> Boxes:
        return Boxes(*(t[chosen] for t in vars(self).values()))

    def with_more(self, others: Boxes) -> Boxes:
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return Boxes(*(torch.cat(pair) for pair in pairs))


@torch.no_grad()
def integrate_adaptively(integrand: Pullback, target: Target, max_evaluations: int) -> tuple[Integral, Boxes]:
    """Return the integral over the unit cube, and the boxes that gave it."""
    rule = rule_of(integrand.dim)
    m = len(rule.nodes)
    boxes = _measured(integrand, rule, *_first_boxes(integrand.dim, max_evaluations // m))
    while True:
        value, bound = boxes.integral.sum(0), boxes.bound.sum(0)
        allowed = target.allowed(value)
        if bool((bound <= allowed).all()):
            said = f"the bound met the tolerance on {len(boxes.center)} boxes"
            return Integral(value, bound, integrand.evaluations, True, said), boxes
        allowed = torch.maximum(allowed, 1e-16 * bound).clamp(min=torch.finfo(bound.dtype).tiny)  # never none at all
        cut = _worst(boxes, allowed, integrand, room=(max_evaluations - integrand.evaluations) // (2 * m))
        if cut is None or len(cut) == 0:
            said = f"{max_evaluations} evaluations were not enough"
            if cut is None:
                said = "smaller boxes would show rounding alone"
            return Integral(value, bound, integrand.evaluations, False, said), boxes
        kept = torch.ones(len(boxes.center), dtype=torch.bool, device=boxes.center.device).index_fill(0, cut, False)
        boxes = boxes.part(kept).with_more(_measured(integrand, rule, *_halves(boxes.part(cut), allowed)))


def integrate_on(boxes: Boxes, integrand: Pullback) -> Tensor:
    """Return the integral (c,) of given boxes as a sum that gradients flow through."""
    rule = rule_of(integrand.dim)
    step = max(1, CHUNK // len(rule.nodes))
    total = torch.zeros(integrand.channels, dtype=torch.float64, device=integrand.device)
    for center, half in zip(boxes.center.split(step), boxes.half.split(step), strict=True):
        values = _values(integrand, rule, center, half)
        total = total + _volume(half) @ _functionals(rule.mean[None], values)[:, 0]
    return total


def _first_boxes(d: int, most: int) -> tuple[Tensor, Tensor]:
    """Equal boxes that fill the cube, at most so many: center and half width (m, d)."""
    cuts = FIRST_CUTS.get(d, 2)
    while cuts > 1 and cuts**d > most:
        cuts -= 1
    middles = (torch.arange(cuts, dtype=torch.float64) + 0.5) / cuts
    center = torch.cartesian_prod(*[middles] * d).reshape(-1, d)
    return center, torch.full_like(center, 0.5 / cuts)


def _measured(integrand: Pullback, rule: Rule, center: Tensor, half: Tensor) -> Boxes:
    """Apply the rule to boxes, in blocks of bounded memory."""
    step = max(1, CHUNK // len(rule.nodes))
    parts = [_apply(integrand, rule, *part) for part in zip(center.split(step), half.split(step), strict=True)]
    return Boxes(*(torch.cat(tensors) for tensors in zip(*(vars(p).values() for p in parts), strict=True)))


def _apply(integrand: Pullback, rule: Rule, center: Tensor, half: Tensor) -> Boxes:
    values = _values(integrand, rule, center, half)  # (b, m, c)
    center, half = center.to(values), half.to(values)
    rows = (rule.mean[None], (rule.mean - rule.lesser)[None], rule.fine, rule.coarse, rule.curvature)
    mean, check, fine, coarse, curvature = _functionals(torch.cat(rows), values).split([len(r) for r in rows], dim=1)
    scale = len(rule.nodes) ** -0.5
    check = torch.maximum(check[:, 0].abs(), scale * fine.norm(dim=1))
    rough = scale * coarse.norm(dim=1)
    # Where a higher degree fits the values not much better than a lower one, the box does not resolve the integrand (a jump,
    # a kink, a wave too short), and the error may be anything up to the misfit of the lower degree (compare QUADPACK).
    doubt = (CAUTION * check / rough.clamp(min=torch.finfo(rough.dtype).tiny)).clamp(max=1) ** 1.5
    bound = torch.maximum(check, rough * doubt) + integrand.rounding * values.abs().amax(1)
    volume = _volume(half)[:, None]
    return Boxes(center, half, volume * mean[:, 0], volume * bound, volume[..., None] * (curvature.abs() + 0.05 * check[:, None]))


def _values(integrand: Pullback, rule: Rule, center: Tensor, half: Tensor) -> Tensor:
    points = (center[:, None] + half[:, None] * rule.nodes.to(center)).clamp(0, 1)  # (b, m, d)
    return integrand(points.flatten(0, 1)).unflatten(0, points.shape[:2])


def _functionals(rows: Tensor, values: Tensor) -> Tensor:
    return rows.to(values) @ values  # (q, m) x (b, m, c) -> (b, q, c)


def _volume(half: Tensor) -> Tensor:
    return (2 * half).prod(1)


def _worst(boxes: Boxes, allowed: Tensor, integrand: Pullback, room: int) -> Tensor | None:
    """Return the boxes to halve: the fewest without which the bounds would sum to half of what is allowed.

    None where no box can be improved any more.
    """
    share = boxes.bound / allowed
    floor = integrand.rounding * boxes.integral.abs() / allowed
    improvable = ((share > 2 * floor).any(1)) & (2 * boxes.half.amax(1) > integrand.finest)
    weight = torch.where(improvable, share.amax(1), 0)
    order = weight.argsort(descending=True)
    left = weight.sum() - weight[order].cumsum(0)
    count = min(int((left > 0.5).sum()) + 1, int(improvable.sum()))
    return order[: max(0, min(count, room))] if count else None


def _halves(boxes: Boxes, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Cut each box in two across the axis along which the integrand bends most; of equal ones the widest."""
    width = boxes.half / boxes.half.amax(1, keepdim=True)
    axis = ((boxes.curvature / allowed).amax(2) * (1 + 0.1 * width)).argmax(1)
    across = torch.nn.functional.one_hot(axis, boxes.half.shape[1]).to(boxes.half)
    half = boxes.half * (1 - across / 2)
    offset = half * across
    return torch.cat([boxes.center - offset, boxes.center + offset]), half.repeat(2, 1)

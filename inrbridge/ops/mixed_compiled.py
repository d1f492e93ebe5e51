"""Floor 1: the local operator of mixed kernels by compiled kernels, in whichever of two orders is less work."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inrbridge.compiled import mixed, pairs
from inrbridge.ops.binned import BlockedPairs
from inrbridge.ops.pairs import Pairs


def compiled_mixture(found: Pairs, like: Tensor) -> CompiledMixture | None:
    """Return the operator for the device and dtype of a tensor, or None where there are no compiled kernels for them."""
    if not (pairs.available(like) and mixed.available(like)):
        return None
    return CompiledMixture(BlockedPairs(found.to(like)))


@dataclass(frozen=True, eq=False)
class CompiledMixture:
    """Sums of neighbours for each feature, then products (`compiled.pairs`), or kernels made for some pairs at a time, then
    products (`compiled.mixed`). For t neighbours, a point and an input channel cost b h (t + o) or t o (h + b)."""

    blocks: BlockedPairs

    def output(self, values, features, kernel):
        b, o = values.shape[1], kernel.shape[2]
        if self._makes_kernels(b, kernel.shape[0], o):
            return mixed.gather(self.blocks.cut(b * o), values, features, kernel)
        return pairs.forward(_lists(self.blocks.pairs), values, features, kernel)

    def values_gradient(self, features, kernel, cotangent):
        b, c = cotangent.shape[1], kernel.shape[1]
        if self._makes_kernels(b, kernel.shape[0], kernel.shape[2]):
            return mixed.gather(self.blocks.cut(b * c, turned=True), cotangent, features, kernel, turned=True)
        return self._summed(None, features, kernel, cotangent, (True, False, False))[0]

    def features_gradient(self, values, kernel, cotangent):
        if self._makes_kernels(values.shape[1], *kernel.shape[::2]):
            return self._correlated(values, None, kernel, cotangent)[0]
        unused = cotangent.new_zeros(self.blocks.pairs.shape[1], kernel.shape[0])
        return self._summed(values, unused, kernel, cotangent, (False, True, False))[1]

    def kernel_gradient(self, values, features, cotangent):
        h, c, o = features.shape[1], values.shape[2], cotangent.shape[2]
        if self._makes_kernels(values.shape[1], h, o):
            return self._correlated(values, features, None, cotangent)[1]
        return self._summed(values, features, cotangent.new_zeros(h, c, o), cotangent, (False, False, True))[2]

    def gradients(self, values, features, kernel, cotangent):
        if self._makes_kernels(values.shape[1], *kernel.shape[::2]):
            back = self.values_gradient(features, kernel, cotangent)
            return back, *self._correlated(values, features, kernel, cotangent)
        return self._summed(values, features, kernel, cotangent, (True, True, True))

    def _makes_kernels(self, b: int, h: int, o: int) -> bool:
        found = self.blocks.pairs
        count = len(found.node)
        return count * o * (h + b) < b * h * (count + found.shape[0] * o)

    def _summed(self, values, features, kernel, cotangent, wanted):
        turned = self.blocks.pairs.turned
        found = pairs.backward(_lists(turned), values, features, kernel, cotangent, wanted)
        return found if found[1] is None else (found[0], turned.sum_by_node(found[1]), found[2])

    def _correlated(self, values, features, kernel, cotangent):
        blocks = self.blocks.cut(values.shape[1] * cotangent.shape[2])
        found, total = mixed.correlate(blocks, values, features, kernel, cotangent)
        if found is not None:
            found = found.new_zeros(self.blocks.pairs.shape[1], found.shape[1]).index_add_(0, blocks.nodes, found)
        return found, total


def _lists(found: Pairs) -> pairs.Lists:
    rows = found.rows
    return pairs.Lists(found.order, rows.bounds, rows.columns, rows.nodes, rows.weights)

"""Floor 1: the local operator of mixed kernels by compiled kernels, in whichever of two orders is less work."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inrbridge.compiled import mixed, pairs
from inrbridge.compiled.bins import Blocks
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
    products (`compiled.mixed`). For t neighbours, a point and an input channel cost b h (t + o) or t o (h + b), or less where the
    points of a block share kernels, as those of a lattice do."""

    blocks: BlockedPairs

    def output(self, values, features, kernel):
        blocks = self.blocks.cut(values.shape[1] * kernel.shape[2])
        if self._makes_kernels(blocks, values.shape[1], *kernel.shape[::2]):
            return mixed.gather(blocks, values, features, kernel)
        return pairs.forward(_lists(self.blocks.pairs), values, features, kernel)

    def values_gradient(self, features, kernel, cotangent):
        blocks = self.blocks.cut(cotangent.shape[1] * kernel.shape[1], turned=True)
        if self._makes_kernels(blocks, cotangent.shape[1], *kernel.shape[:2]):
            return mixed.gather(blocks, cotangent, features, kernel, turned=True)
        return self._summed(None, features, kernel, cotangent, (True, False, False))[0]

    def features_gradient(self, values, kernel, cotangent):
        blocks = self.blocks.cut(values.shape[1] * cotangent.shape[2])
        if self._makes_kernels(blocks, values.shape[1], *kernel.shape[::2]):
            return self._correlated(blocks, values, None, kernel, cotangent)[0]
        unused = cotangent.new_zeros(self.blocks.pairs.shape[1], kernel.shape[0])
        return self._summed(values, unused, kernel, cotangent, (False, True, False))[1]

    def kernel_gradient(self, values, features, cotangent):
        h, c, o = features.shape[1], values.shape[2], cotangent.shape[2]
        blocks = self.blocks.cut(values.shape[1] * o)
        if self._makes_kernels(blocks, values.shape[1], h, o):
            return self._correlated(blocks, values, features, None, cotangent)[1]
        return self._summed(values, features, cotangent.new_zeros(h, c, o), cotangent, (False, False, True))[2]

    def gradients(self, values, features, kernel, cotangent):
        blocks = self.blocks.cut(values.shape[1] * cotangent.shape[2])
        if self._makes_kernels(blocks, values.shape[1], *kernel.shape[::2]):
            back = self.values_gradient(features, kernel, cotangent)
            return back, *self._correlated(blocks, values, features, kernel, cotangent)
        return self._summed(values, features, kernel, cotangent, (True, True, True))

    @staticmethod
    def _makes_kernels(blocks: Blocks, b: int, h: int, out: int) -> bool:
        """Whether that is less work, for so many numbers of a result. Sums run at some four fifths of the speed."""
        kernels, found, points = len(blocks.nodes), len(blocks.target), len(blocks.order)
        return out * (h * kernels + b * found) < 1.25 * b * h * (found + points * out)

    def _summed(self, values, features, kernel, cotangent, wanted):
        turned = self.blocks.pairs.turned
        found = pairs.backward(_lists(turned), values, features, kernel, cotangent, wanted)
        return found if found[1] is None else (found[0], turned.sum_by_node(found[1]), found[2])

    def _correlated(self, blocks, values, features, kernel, cotangent):
        found, total = mixed.correlate(blocks, values, features, kernel, cotangent)
        if found is not None:
            found = found.new_zeros(self.blocks.pairs.shape[1], found.shape[1]).index_add_(0, blocks.nodes, found)
        return found, total


def _lists(found: Pairs) -> pairs.Lists:
    rows = found.rows
    return pairs.Lists(found.order, rows.bounds, rows.columns, rows.nodes, rows.weights)

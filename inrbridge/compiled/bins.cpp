// Floor 1: the local operator where each pair of points feeds one node: out[i] = sum over pairs of i: w f[j] W[node].
//
// Values lie points first, (n, b, c). Output points go in blocks whose results stay in cache; the pairs of a block are sorted
// by node, so that a matrix is multiplied by all the rows that want it. Work is pairs x b x c x o for any number of nodes, and
// nothing is stored but the result. The values' gradient is the same with the pairs turned round and the matrices transposed.

#include "scatter.h"

using namespace inrbridge;

namespace {

// out (points, b, o) of values (n, b, c) and kernel (nodes, c, o); `turned`: kernel (nodes, o, c), to be transposed.
template <class T>
void gather(const PointBlocks& blocks, Index nodes, Index b, Index c, Index o, bool turned, const T* weight, const T* values,
            const T* kernel, T* out) {
    const Index size = round_up(packed_size<T>(c, o), Vector<T>::lanes);
    Buffer<T> packed(nodes * size);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (Index k = 0; k < nodes; ++k)
            pack<T>(kernel + k * c * o, c, o, turned ? 1 : o, turned ? c : 1, packed.data() + k * size);
#pragma omp for schedule(dynamic)
        for (Index q = 0; q < blocks.count; ++q) {
            blocks.clear(q, b * o, out);
            for (Index run = blocks.bounds[q]; run < blocks.bounds[q + 1]; ++run) {
                Index start = blocks.starts[run], stop = blocks.starts[run + 1];
                Rows<T> rows{values, blocks.source + start, out, blocks.target + start, weight + start, b, c, o};
                scatter_product(rows, stop - start, packed.data() + blocks.nodes[run] * size);
            }
        }
    }
}

constexpr Index CHUNK_ROWS = 192;        // of values and cotangents at a time
constexpr Index PARTS = 4;               // sums of the kernel's gradient that are added up at the end
constexpr Index PART_NUMBERS = 1 << 22;  // of one of them; where there are more, there is but one
constexpr Index GROUPS = 16;             // of nodes, times parts

// total (nodes, c, o): the sum over the pairs of a node of w f[source]^T g[target], for pairs in blocks. A task takes one part of
// the blocks, whose values and cotangents are in cache, and a group of nodes.
template <class T>
void correlate(const PointBlocks& blocks, Index nodes, Index b, Index c, Index o, const T* weight, const T* values,
               const T* cotangent, T* total) {
    const Index size = nodes * c * o, parts = size > PART_NUMBERS ? 1 : PARTS, groups = std::min(nodes, GROUPS / parts);
    const Index pairs = std::max<Index>(1, CHUNK_ROWS / b);
    std::vector<T> others((parts - 1) * size);
#pragma omp parallel
    {
        Buffer<T> right(pairs * b * round_up(o, Vector<T>::lanes));
        std::vector<const T*> left(pairs);
#pragma omp for schedule(dynamic)
        for (Index task = 0; task < parts * groups; ++task) {
            const Index part = task / groups, group = task % groups;
            const Index low = nodes * group / groups, high = nodes * (group + 1) / groups;
            T* sums = part == 0 ? total : others.data() + (part - 1) * size;
            std::memset(sums + low * c * o, 0, (high - low) * c * o * sizeof(T));
            const Index first = blocks.bounds[blocks.count * part / parts];
            const Index last = blocks.bounds[blocks.count * (part + 1) / parts];
            for (Index run = first; run < last; ++run) {
                const Index node = blocks.nodes[run];
                if (node < low || node >= high) continue;
                for (Index start = blocks.starts[run]; start < blocks.starts[run + 1]; start += pairs) {
                    const Index count = std::min(pairs, blocks.starts[run + 1] - start);
                    for (Index p = 0; p < count; ++p) left[p] = values + blocks.source[start + p] * b * c;
                    Rows<T> rows{cotangent, blocks.target + start, nullptr, nullptr, weight + start, b, o, 0};
                    scaled_strips(rows, count, right.data());
                    compute<T>(Listed<T>{left.data(), right.data(), count, b, c, count * b}, c, o, sums + node * c * o, o, true);
                }
            }
        }
#pragma omp for schedule(static)
        for (Index x = 0; x < size; ++x)
            for (Index part = 1; part < parts; ++part) total[x] += others[(part - 1) * size + x];
    }
}

}  // namespace

#define EXPORT(T, name)                                                                                                         \
    extern "C" void bins_gather_##name(Index count, Index size, Index points, Index nodes, Index b, Index c, Index o,           \
                                       Index turned, const std::int64_t* order, const std::int64_t* bounds,                     \
                                       const std::int64_t* starts, const std::int64_t* run_nodes, const std::int64_t* target,   \
                                       const std::int64_t* source, const T* weight, const T* values, const T* kernel, T* out) { \
        gather<T>({count, size, points, order, bounds, starts, run_nodes, target, source}, nodes, b, c, o, turned, weight,      \
                  values, kernel, out);                                                                                         \
    }                                                                                                                           \
    extern "C" void bins_correlate_##name(Index count, Index size, Index points, Index nodes, Index b, Index c, Index o,        \
                                          const std::int64_t* order, const std::int64_t* bounds, const std::int64_t* starts,    \
                                          const std::int64_t* run_nodes, const std::int64_t* target,                            \
                                          const std::int64_t* source, const T* weight, const T* values, const T* cotangent,     \
                                          T* total) {                                                                           \
        correlate<T>({count, size, points, order, bounds, starts, run_nodes, target, source}, nodes, b, c, o, weight, values,   \
                     cotangent, total);                                                                                         \
    }

EXPORT(float, float32)
EXPORT(double, float64)

// Floor 1: the local operator where each pair of points feeds one node: out[i] = sum over pairs of i: w f[j] W[node].
//
// Values lie points first, (n, b, c). Output points go in blocks whose results stay in cache; the pairs of a block are sorted
// by node, so that a matrix is multiplied by all the rows that want it. Work is pairs x b x c x o for any number of nodes, and
// nothing is stored but the result. The values' gradient is the same with the pairs turned round and the matrices transposed.

#include "scatter.h"

using namespace inrbridge;

namespace {

// Blocks of `size` output points of an order in which near ones follow one another; block q owns runs bounds[q] to
// bounds[q + 1], run r the pairs starts[r] to starts[r + 1].
struct PointBlocks {
    Index count, size, points;
    const std::int64_t *order, *bounds, *starts, *nodes;
    const std::int64_t *target, *source;
};

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
            Index first = q * blocks.size, last = std::min(first + blocks.size, blocks.points);
            for (Index i = first; i < last; ++i) std::memset(out + blocks.order[i] * b * o, 0, b * o * sizeof(T));
            for (Index run = blocks.bounds[q]; run < blocks.bounds[q + 1]; ++run) {
                Index start = blocks.starts[run], stop = blocks.starts[run + 1];
                Rows<T> rows{values, blocks.source + start, out, blocks.target + start, weight + start, b, c, o};
                scatter_product(rows, stop - start, packed.data() + blocks.nodes[run] * size);
            }
        }
    }
}

constexpr Index CHUNK_ROWS = 192;  // of values and cotangents at a time, that stay in the second cache

// total (nodes, c, o) = sum over the pairs of a node: w f[source]^T g[target]; node k owns pairs starts[k] to starts[k + 1].
template <class T>
void correlate(Index nodes, const std::int64_t* starts, const std::int64_t* source, const std::int64_t* target, Index b, Index c,
               Index o, const T* weight, const T* values, const T* cotangent, T* total) {
    const Index pairs = std::max<Index>(1, CHUNK_ROWS / b), strip = Block<T>::columns;
    const Index width = nodes < 64 ? strip : round_up(o, strip), parts = (o + width - 1) / width;  // few nodes: more tasks
#pragma omp parallel
    {
        Buffer<T> right(pairs * b * round_up(std::min(width, o), Vector<T>::lanes));
        std::vector<const T*> left(pairs);
#pragma omp for schedule(dynamic)
        for (Index task = 0; task < nodes * parts; ++task) {
            Index k = task / parts, column = task % parts * width, columns = std::min(width, o - column);
            T* to = total + k * c * o + column;
            for (Index m = 0; m < c; ++m) std::memset(to + m * o, 0, columns * sizeof(T));
            for (Index start = starts[k]; start < starts[k + 1]; start += pairs) {
                Index count = std::min(pairs, starts[k + 1] - start);
                for (Index p = 0; p < count; ++p) left[p] = values + source[start + p] * b * c;
                Rows<T> rows{cotangent, target + start, nullptr, nullptr, weight + start, b, o, 0};
                scaled_strips(rows, count, column, columns, right.data());
                compute<T>(Listed<T>{left.data(), right.data(), count, b, c, count * b}, c, columns, to, o, true);
            }
        }
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
    extern "C" void bins_correlate_##name(Index nodes, Index b, Index c, Index o, const std::int64_t* starts,                   \
                                          const std::int64_t* target, const std::int64_t* source, const T* weight,              \
                                          const T* values, const T* cotangent, T* total) {                                      \
        correlate<T>(nodes, starts, source, target, b, c, o, weight, values, cotangent, total);                                 \
    }

EXPORT(float, float32)
EXPORT(double, float64)

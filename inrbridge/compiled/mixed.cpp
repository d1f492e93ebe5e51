// Floor 1: the local operator where each node has a kernel mixed from a few: out[i] = sum over pairs of i: w f[j] K[node] with
// K[node] = sum_h phi[node][h] W[h], and its gradients, for nodes too many to make all their kernels at once.
//
// Blocks are those of bins.cpp. The kernels of some runs of a block are made, used by all fields, and forgotten; so are their
// gradients, from which those of phi and W follow. Work is runs x h x c x o beside the products of the pairs.

#include "scatter.h"

using namespace inrbridge;

namespace {

constexpr Index KERNEL_BYTES = 160 << 10;  // of the kernels that are made at a time
constexpr Index CHUNK_ROWS = 192;          // of values and cotangents at a time
constexpr Index PARTS = 16;                // sums of the gradient of W that are added up at the end

// Numbers from one kernel to the next, packed or not; never a power of two, or all would fall into the same places of a cache.
template <class T>
Index stride_of(Index numbers) {
    return round_up(numbers, 128 / sizeof(T)) + 64 / sizeof(T);
}

// How many kernels are made at a time.
template <class T>
Index chunk_of(Index stride) {
    return std::max<Index>(Block<T>::rows, KERNEL_BYTES / Index(stride * sizeof(T)));
}

// out (points, b, o) of values (n, b, c), features (nodes, h) and kernel W (h, c, o); `turned`: (h, o, c), to be transposed.
template <class T>
void gather(const PointBlocks& blocks, Index h, Index b, Index c, Index o, bool turned, const T* weight, const T* values,
            const T* features, const T* kernel, T* out) {
    const Index size = packed_size<T>(c, o), stride = stride_of<T>(size), chunk = chunk_of<T>(stride);
    Buffer<T> packed(h * stride);
    for (Index k = 0; k < h; ++k)
        pack<T>(kernel + k * c * o, c, o, turned ? 1 : o, turned ? c : 1, packed.data() + k * stride);
#pragma omp parallel
    {
        Buffer<T> made(chunk * stride), phi(h * chunk);
#pragma omp for schedule(dynamic)
        for (Index block = 0; block < blocks.count; ++block) {
            blocks.clear(block, b * o, out);
            for (Index first = blocks.bounds[block]; first < blocks.bounds[block + 1]; first += chunk) {
                const Index count = std::min(chunk, blocks.bounds[block + 1] - first);
                for (Index k = 0; k < h; ++k)
                    for (Index r = 0; r < count; ++r) phi.data()[k * count + r] = features[blocks.nodes[first + r] * h + k];
                compute<T>(Columns<T>{phi.data(), count, packed.data(), stride, h}, count, size, made.data(), stride, false);
                for (Index r = 0; r < count; ++r) {
                    const Index start = blocks.starts[first + r];
                    Rows<T> rows{values, blocks.source + start, out, blocks.target + start, weight + start, b, c, o};
                    scatter_product(rows, blocks.starts[first + r + 1] - start, made.data() + r * stride);
                }
            }
        }
    }
}

// Gradients of the features of each run (runs, h), if not null, and of W (h, c, o), if not null. `spread` is W as (c, o, h).
template <class T>
void correlate(const PointBlocks& blocks, Index h, Index b, Index c, Index o, const T* weight, const T* values,
               const T* features, const T* spread, const T* cotangent, T* to_features, T* to_kernel) {
    const Index size = c * o, stride = stride_of<T>(size), chunk = chunk_of<T>(stride);
    const Index pairs = std::max<Index>(1, CHUNK_ROWS / b);
    Buffer<T> matrix(to_features ? size * h + Block<T>::columns : 0);  // loads go beyond its last row
    if (to_features) std::memcpy(matrix.data(), spread, size * h * sizeof(T));
    const Index numbers = to_kernel ? h * size : 0;
    std::vector<T> partial(PARTS * numbers);
#pragma omp parallel
    {
        Buffer<T> made(chunk * stride + Block<T>::columns), phi(chunk * h), right(pairs * b * round_up(o, Vector<T>::lanes));
        std::vector<const T*> left(pairs), kernels(chunk);
        for (Index r = 0; r < chunk; ++r) kernels[r] = made.data() + r * stride;
#pragma omp for schedule(dynamic)
        for (Index part = 0; part < PARTS; ++part) {
            const Index begin = blocks.bounds[blocks.count * part / PARTS];
            const Index end = blocks.bounds[blocks.count * (part + 1) / PARTS];
            for (Index first = begin; first < end; first += chunk) {
                const Index count = std::min(chunk, end - first);
                for (Index r = 0; r < count; ++r) {
                    for (Index start = blocks.starts[first + r]; start < blocks.starts[first + r + 1]; start += pairs) {
                        const Index some = std::min(pairs, blocks.starts[first + r + 1] - start);
                        for (Index p = 0; p < some; ++p) left[p] = values + blocks.source[start + p] * b * c;
                        Rows<T> rows{cotangent, blocks.target + start, nullptr, nullptr, weight + start, b, o, 0};
                        scaled_strips(rows, some, right.data());
                        compute<T>(Listed<T>{left.data(), right.data(), some, b, c, some * b}, c, o, made.data() + r * stride, o,
                                   start > blocks.starts[first + r]);
                    }
                }
                if (to_kernel) {
                    for (Index r = 0; r < count; ++r)
                        std::memcpy(phi.data() + r * h, features + blocks.nodes[first + r] * h, h * sizeof(T));
                    T* total = partial.data() + part * numbers;
                    compute<T>(Columns<T>{phi.data(), h, made.data(), stride, count}, h, size, total, size, true);
                }
                if (to_features)
                    compute<T>(Matched<T>{kernels.data(), matrix.data(), size, h}, count, h, to_features + first * h, h, false);
            }
        }
#pragma omp for schedule(static)
        for (Index x = 0; x < numbers; ++x) {
            T sum = 0;
            for (Index part = 0; part < PARTS; ++part) sum += partial[part * numbers + x];
            to_kernel[x] = sum;
        }
    }
}

}  // namespace

#define LISTS(T)                                                                                                                \
    const std::int64_t *order, const std::int64_t *bounds, const std::int64_t *starts, const std::int64_t *run_nodes,           \
        const std::int64_t *target, const std::int64_t *source, const T *weight
#define EXPORT(T, name)                                                                                                         \
    extern "C" void mixed_gather_##name(Index count, Index size, Index points, Index h, Index b, Index c, Index o, Index turned, \
                                        LISTS(T), const T* values, const T* features, const T* kernel, T* out) {                \
        gather<T>({count, size, points, order, bounds, starts, run_nodes, target, source}, h, b, c, o, turned, weight, values,  \
                  features, kernel, out);                                                                                       \
    }                                                                                                                           \
    extern "C" void mixed_correlate_##name(Index count, Index size, Index points, Index h, Index b, Index c, Index o, LISTS(T), \
                                           const T* values, const T* features, const T* spread, const T* cotangent,             \
                                           T* to_features, T* to_kernel) {                                                      \
        correlate<T>({count, size, points, order, bounds, starts, run_nodes, target, source}, h, b, c, o, weight, values,       \
                     features, spread, cotangent, to_features, to_kernel);                                                      \
    }

EXPORT(float, float32)
EXPORT(double, float64)

// Floor 1: the local operator and its gradients in one pass over tiles that stay in cache.
//
// A pass takes a stencil in patches (patches.cpp), sums a source (n, fields, channels) into the kernel nodes of a patch,
// Z[node][row][channel] with one row for each point and field, and uses Z at once for one or both of
//
//   out[row]    = sum_node Z[node][row] W[node]                 the forward pass, or the gradient of the values
//   total[node] = sum_row Z[node][row]^T other[row]             the gradient of the kernel
//
// The backward pass is this pass over the exchanged stencil: there the source is the gradient of the output, W is transposed and
// `other` are the values. Every number is summed in one order, whatever the number of threads.
#include <algorithm>
#include <memory>
#include <vector>

#include "contract.h"

namespace inrbridge {

constexpr Index SPAN = 128;              // numbers of a source's row that are summed together
constexpr Index NODE_BYTES = 192 << 10;  // of a patch's sums: they share the second cache with the kernel
constexpr Index PARTS = 64;              // sums of the kernel's gradient that are added up at the end
constexpr Index PART_BYTES = 32 << 20;   // of all of them

// What a pass is given. The kernel lies as (nodes, in / groups, out); `adjoint` says that the source has its `out` channels.
template <class S>
struct Pass {
    typedef typename Sum<S>::type T;
    Patches<T> patches;
    Index fields, channels, out_channels, groups;
    const S* source;  // (n, fields, channels)
    const S* kernel;
    bool adjoint;
    S* out;          // (points, fields, out_channels), or null
    const S* other;  // (points, fields, out_channels), or null with total
    S* total;        // as the kernel

    Index depth() const { return channels / groups; }
    Index width() const { return out_channels / groups; }
    // Where the kernel holds row p and column q of a group's matrix at a node.
    Index place(Index node, Index group, Index p, Index q) const {
        if (adjoint) return (node * width() + q) * channels + group * depth() + p;
        return (node * depth() + p) * out_channels + group * width() + q;
    }
};

inline Index parts(Index count, Index most) { return (count + most - 1) / most; }

// How a pass is cut: blocks of fields, patches of points, runs of nodes.
template <class S>
struct Cut {
    Index blocks, fields, patches, nodes;  // fields: of the largest block; nodes: of a run

    explicit Cut(const Pass<S>& x) {
        blocks = parts(x.fields, std::clamp<Index>(SPAN / x.channels, 1, x.fields));
        fields = parts(x.fields, blocks);
        patches = parts(x.patches.points, x.patches.size);
        Index bytes = x.patches.size * fields * x.channels * Index(sizeof(typename Pass<S>::T));
        nodes = parts(x.patches.nodes, parts(x.patches.nodes, std::clamp<Index>(NODE_BYTES / bytes, 1, x.patches.nodes)));
    }
};

// All matrices of the kernel, packed, those of one group after another.
template <class S, class T = typename Sum<S>::type>
std::vector<T> pack_kernel(const Pass<S>& x) {
    Index size = packed_size<T>(x.depth(), x.width());
    std::vector<T> packed(size * x.patches.nodes * x.groups);
#pragma omp parallel for
    for (Index node = 0; node < x.patches.nodes; ++node)
        for (Index group = 0; group < x.groups; ++group)
            pack(x.kernel + x.place(node, group, 0, 0), x.depth(), x.width(), x.adjoint ? 1 : x.out_channels,
                 x.adjoint ? x.channels : 1, packed.data() + (group * x.patches.nodes + node) * size);
    return packed;
}

// What one thread works in.
template <class S>
struct Worker {
    typedef typename Sum<S>::type T;
    const Pass<S>& x;
    const Cut<S>& cut;
    const std::vector<T>& packed;
    std::vector<T> halo, sums, result, other;
    std::vector<const T*> left, right;

    Worker(const Pass<S>& x, const Cut<S>& cut, const std::vector<T>& packed) : x(x), cut(cut), packed(packed) {
        Index rows = x.patches.size * cut.fields;
        halo.resize(x.patches.longest_halo() * round_up(cut.fields * x.channels, Vector<T>::lanes));
        sums.resize(cut.nodes * rows * x.channels);
        result.resize(x.out ? rows * x.out_channels : 0);
        other.resize(x.total ? rows * x.out_channels + Vector<T>::lanes : 0);
        left.resize(cut.nodes);
        right.resize(cut.nodes);
    }

    // A patch of a block of fields, task = block * patches + patch.
    void work(Index task, T* total) {
        Index block = task / cut.patches, patch = task % cut.patches, first = patch * x.patches.size;
        Index points = std::min(x.patches.size, x.patches.points - first);
        Index field = block * x.fields / cut.blocks, fields = (block + 1) * x.fields / cut.blocks - field;
        Index length = fields * x.channels, stride = x.fields * x.channels;
        gather(x.patches, patch, x.source + field * x.channels, stride, length, halo.data());
        if (total)
            over_rows(first, points, field, fields, [&](Index at, Index q) { other[q] = wide(x.other[at]); });
        for (Index node = 0; node < x.patches.nodes; node += cut.nodes) {
            Run run{patch, points, node, std::min(cut.nodes, x.patches.nodes - node)};
            contract(x.patches, run, halo.data(), length, sums.data());
            for (Index group = 0; group < x.groups; ++group) {
                if (x.out) mix(run, group, points * fields);
                if (total) correlate(run, group, points * fields, total);
            }
        }
        if (x.out) over_rows(first, points, field, fields, [&](Index at, Index q) { put(x.out + at, result[q]); });
    }

    // Runs over the numbers of a patch's rows: where they lie in memory, and one after another.
    template <class Each>
    void over_rows(Index first, Index points, Index field, Index fields, const Each& each) {
        Index length = fields * x.out_channels;
        for (Index p = 0; p < points; ++p) {
            Index at = (x.patches.order[first + p] * x.fields + field) * x.out_channels;
            for (Index q = 0; q < length; ++q) each(at + q, p * length + q);
        }
    }

    void mix(const Run& run, Index group, Index rows) {
        Index size = packed_size<T>(x.depth(), x.width());
        for (Index node = 0; node < run.nodes; ++node) {
            left[node] = sums.data() + node * rows * x.channels + group * x.depth();
            right[node] = packed.data() + (group * x.patches.nodes + run.first_node + node) * size;
        }
        multiply(Factors<T>{left.data(), right.data(), run.nodes, x.depth(), x.channels}, rows, x.width(),
                 result.data() + group * x.width(), x.out_channels, run.first_node > 0);
    }

    void correlate(const Run& run, Index group, Index rows, T* total) {
        for (Index node = 0; node < run.nodes; ++node)
            outer(sums.data() + node * rows * x.channels + group * x.depth(), x.channels, other.data() + group * x.width(),
                  x.out_channels, rows, x.depth(), x.width(),
                  total + (group * x.patches.nodes + run.first_node + node) * x.depth() * x.width(), x.width());
    }
};

// Adds up the parts of the kernel's gradient.
template <class S, class T>
void add_parts(const Pass<S>& x, const std::vector<T>& totals, Index count) {
    Index size = x.patches.nodes * x.groups * x.depth() * x.width();
#pragma omp parallel for
    for (Index node = 0; node < x.patches.nodes; ++node)
        for (Index group = 0; group < x.groups; ++group)
            for (Index p = 0; p < x.depth(); ++p)
                for (Index q = 0; q < x.width(); ++q) {
                    T sum = 0;
                    for (Index part = 0; part < count; ++part)
                        sum += totals[part * size + ((group * x.patches.nodes + node) * x.depth() + p) * x.width() + q];
                    put(x.total + x.place(node, group, p, q), sum);
                }
}

template <class S>
void run(const Pass<S>& x) {
    typedef typename Sum<S>::type T;
    Cut<S> cut(x);
    std::vector<T> packed = x.out ? pack_kernel(x) : std::vector<T>();
    Index tasks = cut.blocks * cut.patches, size = x.patches.nodes * x.groups * x.depth() * x.width();
    Index most = x.total ? std::clamp<Index>(PART_BYTES / (size * Index(sizeof(T))), 8, PARTS) : tasks;
    Index chunks = std::min(tasks, most);
    std::vector<T> totals(x.total ? chunks * size : 0);
#pragma omp parallel
    {
        Worker<S> worker(x, cut, packed);
#pragma omp for schedule(dynamic, 1)
        for (Index chunk = 0; chunk < chunks; ++chunk)
            for (Index task = chunk * tasks / chunks; task < (chunk + 1) * tasks / chunks; ++task)
                worker.work(task, x.total ? totals.data() + chunk * size : nullptr);
    }
    if (x.total) add_parts(x, totals, chunks);
}

}  // namespace inrbridge

using inrbridge::Index;

#define LOCAL_PASS(name, S, T)                                                                                                   \
    extern "C" void name(const std::int32_t* order, const std::int32_t* starts, const std::int32_t* index, const T* weight,      \
                         const std::int32_t* halo_starts, const std::int32_t* halo, Index points, Index nodes, Index size,       \
                         Index fields, Index channels, Index out_channels, Index groups, const S* source, const S* kernel,       \
                         Index adjoint, S* out, const S* other, S* total) {                                                      \
        inrbridge::Patches<T> patches{order, starts, index, weight, halo_starts, halo, points, nodes, size};                     \
        inrbridge::Pass<S> x{patches, fields, channels, out_channels, groups, source, kernel, adjoint != 0, out, other, total};  \
        inrbridge::run(x);                                                                                                       \
    }

LOCAL_PASS(local_float32, float, float)
LOCAL_PASS(local_float64, double, double)
LOCAL_PASS(local_bfloat16, inrbridge::bfloat16, float)

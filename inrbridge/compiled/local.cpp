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
#include "pass.h"

namespace inrbridge {

constexpr Index SPAN = 128;              // numbers of a source's row that are summed together
constexpr Index NODE_BYTES = 192 << 10;  // of a patch's sums: they share the second cache with the kernel

// All matrices of the kernel, packed, those of one group after another.
template <class S, class T = typename Sum<S>::type>
Buffer<T> pack_kernel(const Pass<S>& x) {
    Index size = packed_size<T>(x.depth(), x.width());
    Buffer<T> packed(size * x.patches.nodes * x.groups);
#pragma omp parallel for
    for (Index node = 0; node < x.patches.nodes; ++node)
        for (Index group = 0; group < x.groups; ++group)
            pack(x.kernel + x.place(node, group, 0, 0), x.depth(), x.width(), x.adjoint ? 1 : x.out_channels,
                 x.adjoint ? x.channels : 1, packed.data() + (group * x.patches.nodes + node) * size);
    return packed;
}

// What one thread works in. Nodes are taken in runs whose sums stay in cache.
template <class S>
struct Worker {
    typedef typename Sum<S>::type T;
    const Pass<S>& x;
    const Buffer<T>& packed;
    Index run_nodes;
    Buffer<T> halo, sums, result, other;
    std::vector<const T*> left, right;

    Worker(const Pass<S>& x, const Buffer<T>& packed, Index fields) : x(x), packed(packed) {
        Index rows = x.patches.size * fields, nodes = x.patches.nodes;
        Index fit = std::clamp<Index>(NODE_BYTES / (rows * x.channels * Index(sizeof(T))), 1, nodes);
        run_nodes = parts(nodes, parts(nodes, fit));
        halo.resize(x.patches.longest_halo() * round_up(fields * x.channels, Vector<T>::lanes));
        sums.resize(run_nodes * rows * x.channels + Vector<T>::lanes);  // products may read beyond the last row
        result.resize(x.out ? rows * x.out_channels : 0);
        other.resize(x.total ? rows * x.out_channels + Vector<T>::lanes : 0);
        left.resize(run_nodes);
        right.resize(run_nodes);
    }

    void work(const Task& task, T* total) {
        Index length = task.fields * x.channels, rows = task.points * task.fields;
        gather(x.patches, task.patch, x.source + task.field * x.channels, x.fields * x.channels, length, halo.data());
        if (total) over_rows(task, [&](Index at, Index q) { other[q] = wide(x.other[at]); });
        for (Index node = 0; node < x.patches.nodes; node += run_nodes) {
            Run run{task.patch, task.points, node, std::min(run_nodes, x.patches.nodes - node)};
            contract(x.patches, run, halo.data(), length, sums.data());
            for (Index group = 0; group < x.groups; ++group) {
                if (x.out) mix(run, group, rows);
                if (total) correlate(run, group, rows, total);
            }
        }
        if (x.out) over_rows(task, [&](Index at, Index q) { put(x.out + at, result[q]); });
    }

    // Runs over the numbers of a patch's rows: where they lie in memory, and one after another.
    template <class Each>
    void over_rows(const Task& task, const Each& each) {
        Index length = task.fields * x.out_channels;
        for (Index p = 0; p < task.points; ++p) {
            Index at = (x.patches.order[task.first + p] * x.fields + task.field) * x.out_channels;
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
        const T* with = other.data() + group * x.width();
        for (Index node = 0; node < run.nodes; ++node) {
            const T* sum = sums.data() + node * rows * x.channels + group * x.depth();
            T* to = total + x.place(run.first_node + node, group, 0, 0);
            if (x.adjoint)
                outer(with, x.out_channels, sum, x.channels, rows, x.width(), x.depth(), to, x.channels);
            else
                outer(sum, x.channels, with, x.out_channels, rows, x.depth(), x.width(), to, x.out_channels);
        }
    }
};

template <class S>
void run(const Pass<S>& x) {
    Index blocks = parts(x.fields, std::clamp<Index>(SPAN / x.channels, 1, x.fields));
    auto packed = x.out ? pack_kernel(x) : Buffer<typename Sum<S>::type>();
    run_tasks(x, blocks, [&] { return Worker<S>(x, packed, parts(x.fields, blocks)); });
}

}  // namespace inrbridge

extern "C" {
void local_float32(PASS_ARGUMENTS(float, float)) { inrbridge::run(PASS(float)); }
void local_float64(PASS_ARGUMENTS(double, double)) { inrbridge::run(PASS(double)); }
void local_bfloat16(PASS_ARGUMENTS(inrbridge::bfloat16, float)) { inrbridge::run(PASS(inrbridge::bfloat16)); }
}

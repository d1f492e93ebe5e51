// Floor 1: a pass of the local operator over patches and blocks of fields, whatever it does with what it sums.
//
// Its tasks are patches of blocks of fields. Those of the kernel's gradient are added up in parts, each by one thread and in
// order, so that no sum depends on the number of threads.
#pragma once

#include <algorithm>
#include <vector>

#include "contract.h"

namespace inrbridge {

constexpr Index PARTS = 64;             // sums of the kernel's gradient that are added up at the end
constexpr Index PART_BYTES = 32 << 20;  // of all of them

inline Index parts(Index count, Index most) { return (count + most - 1) / most; }

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

// A block of fields and a patch of points.
struct Task {
    Index field, fields, patch, first, points;
};

template <class S>
Task task_at(const Pass<S>& x, Index blocks, Index number) {
    Index patch = number / blocks, block = number % blocks;  // all fields of a patch: they lie beside each other
    Index field = block * x.fields / blocks, first = patch * x.patches.size;
    return {field, (block + 1) * x.fields / blocks - field, patch, first, std::min(x.patches.size, x.patches.points - first)};
}

// Runs all tasks, with a worker of each thread's own: worker.work(task, total) adds to total, laid as the kernel, if asked for.
template <class S, class Make>
void run_tasks(const Pass<S>& x, Index blocks, const Make& make) {
    typedef typename Sum<S>::type T;
    Index tasks = blocks * parts(x.patches.points, x.patches.size), size = x.patches.nodes * x.channels * x.width();
    Index most = x.total ? std::clamp<Index>(PART_BYTES / (size * Index(sizeof(T))), 8, PARTS) : tasks;
    Index chunks = std::min(tasks, most);
    Buffer<T> totals(x.total ? chunks * size : 0);
#pragma omp parallel
    {
        auto worker = make();
#pragma omp for schedule(dynamic, 1)
        for (Index chunk = 0; chunk < chunks; ++chunk)
            for (Index number = chunk * tasks / chunks; number < (chunk + 1) * tasks / chunks; ++number)
                worker.work(task_at(x, blocks, number), x.total ? totals.data() + chunk * size : nullptr);
    }
#pragma omp parallel for
    for (Index at = 0; at < (x.total ? size : 0); ++at) {
        T sum = 0;
        for (Index chunk = 0; chunk < chunks; ++chunk) sum += totals[chunk * size + at];
        put(x.total + at, sum);
    }
}

}  // namespace inrbridge

// The arguments of a pass in C: a stencil in patches, sizes, and what the pass takes and gives.
#define PASS_ARGUMENTS(S, T)                                                                                                     \
    const std::int32_t *order, const std::int32_t *starts, const std::int32_t *index, const T *weight,                           \
        const std::int32_t *halo_starts, const std::int32_t *halo, inrbridge::Index points, inrbridge::Index nodes,              \
        inrbridge::Index size, inrbridge::Index fields, inrbridge::Index channels, inrbridge::Index out_channels,                \
        inrbridge::Index groups, const S *source, const S *kernel, inrbridge::Index adjoint, S *out, const S *other, S *total

#define PASS(S)                                                                                                                  \
    inrbridge::Pass<S> {                                                                                                         \
        {order, starts, index, weight, halo_starts, halo, points, nodes, size}, fields, channels, out_channels, groups, source,  \
            kernel, adjoint != 0, out, other, total                                                                              \
    }

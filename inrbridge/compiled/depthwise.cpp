// Floor 1: the depth-wise local operator, whose kernel (nodes, channels) gives each channel its own weight at a node.
//
// The nodes of a point are folded into one weight for each neighbour and channel, shared by all fields,
//
//   A[read][c]            = sum_node P[point, node, read] W[node][c]; then
//   out[point][field][c]  = sum_read A[read][c] source[read][field][c]                          as in local.cpp; and with
//   D[read][c]            = sum_field source[read][field][c] other[point][field][c]
//   total[node][c]       += sum_read P[point, node, read] D[read][c]
//
// so that the work in every field is that of the distinct neighbours, some 35 for 9 nodes, not that of all pairs.
#include "pass.h"

namespace inrbridge {

constexpr Index FIELDS = 8;   // that share the folded kernel of a point
constexpr int WIDTH = 4;      // vectors of channels at a time
constexpr int TOGETHER = 4;   // fields, or neighbours, at a time: what they share is loaded once

// The entries of each point by what it reads (patches.cpp).
template <class T>
struct Turned {
    const std::int32_t *read_starts, *reads, *bounds, *node;
    const T* weight;

    Index most_reads(Index points) const {
        Index most = 0;
        for (Index p = 0; p < points; ++p) most = std::max<Index>(most, read_starts[p + 1] - read_starts[p]);
        return most;
    }
};

// out[field] = sum_read folded[read] * source[field][place of read], `vectors` vectors of `count` fields.
template <int count, int vectors, class T>
void sum_reads(const std::int32_t* reads, Index number, const T* folded, const T* source, Index field_step, Index width, T* out) {
    constexpr Index lanes = Vector<T>::lanes;
    Numbers<T> sum[count][vectors] = {};
    for (Index read = 0; read < number; ++read) {
        const T* from = source + reads[read] * width;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            Numbers<T> factor = load(folded + read * width + v * lanes);
#pragma GCC unroll 4
            for (int f = 0; f < count; ++f) sum[f][v] += factor * load(from + f * field_step + v * lanes);
        }
    }
#pragma GCC unroll 4
    for (int f = 0; f < count; ++f)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) store(out + f * width + v * lanes, sum[f][v]);
}

// out[place of read] = sum_field source[field][place of read] * other[field], `vectors` vectors of `count` reads.
template <int count, int vectors, class T>
void sum_fields(const std::int32_t* reads, Index fields, const T* source, Index field_step, const T* other, Index width, T* out) {
    constexpr Index lanes = Vector<T>::lanes;
    Numbers<T> sum[count][vectors] = {};
    for (Index f = 0; f < fields; ++f)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
            Numbers<T> factor = load(other + f * width + v * lanes);
#pragma GCC unroll 4
            for (int r = 0; r < count; ++r) sum[r][v] += factor * load(source + f * field_step + reads[r] * width + v * lanes);
        }
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) store(out + reads[r] * width + v * lanes, sum[r][v]);
}

// Two vectors of channels at a time, and TOGETHER of whatever goes together; the rest one by one.
template <class Many, class One>
inline void together(Index count, const Many& many, const One& one) {
    Index first = 0;
    for (; first + TOGETHER <= count; first += TOGETHER) many(first);
    for (; first < count; ++first) one(first);
}

template <class S>
struct Worker {
    typedef typename Sum<S>::type T;
    static constexpr Index lanes = Vector<T>::lanes;
    const Pass<S>& x;
    const Turned<T>& turned;
    Buffer<T> kernel, halo, folded, result, other, total_strip;
    Index halo_rows = 0, width = 0;

    Worker(const Pass<S>& x, const Turned<T>& turned, Index fields) : x(x), turned(turned) {
        Index most = WIDTH * lanes;
        Index longest = x.patches.longest_halo();
        halo.resize(fields * longest * most);
        folded.resize(std::max(longest, turned.most_reads(x.patches.points)) * most);
        kernel.resize(x.patches.nodes * most);
        total_strip.resize(x.patches.nodes * most);
        result.resize(fields * most);
        other.resize(fields * most);
    }

    void work(const Task& task, T* total) {
        for (Index channel = 0; channel < x.channels; channel += WIDTH * lanes) {
            Index wanted = std::min(WIDTH * lanes, x.channels - channel);
            switch (parts(wanted, lanes)) {
                case 1: strip<1>(task, channel, wanted, total); break;
                case 2: strip<2>(task, channel, wanted, total); break;
                case 3: strip<3>(task, channel, wanted, total); break;
                default: strip<WIDTH>(task, channel, wanted, total);
            }
        }
    }

    // A run of channels of a task.
    template <int vectors>
    void strip(const Task& task, Index channel, Index wanted, T* total) {
        width = vectors * lanes;
        halo_rows = x.patches.halo_starts[task.patch + 1] - x.patches.halo_starts[task.patch];
        for (Index f = 0; f < task.fields; ++f)
            gather(x.patches, task.patch, x.source + (task.field + f) * x.channels + channel, x.fields * x.channels, wanted,
                   halo.data() + f * halo_rows * width);
        if (x.out) {
            std::fill(kernel.begin(), kernel.end(), T(0));
            for (Index node = 0; node < x.patches.nodes; ++node)
                for (Index c = 0; c < wanted; ++c) kernel[node * width + c] = wide(x.kernel[node * x.channels + channel + c]);
        }
        std::fill(total_strip.begin(), total_strip.end(), T(0));
        for (Index p = task.first; p < task.first + task.points; ++p) {
            const std::int32_t* reads = turned.reads + turned.read_starts[p];
            Index number = turned.read_starts[p + 1] - turned.read_starts[p];
            Index place = (x.patches.order[p] * x.fields + task.field) * x.channels + channel;
            if (x.out) apply<vectors>(p, reads, number, task.fields, place, wanted);
            if (total) correlate<vectors>(p, reads, number, task.fields, place, wanted);
        }
        for (Index node = 0; total && node < x.patches.nodes; ++node)
            for (Index c = 0; c < wanted; ++c) total[node * x.channels + channel + c] += total_strip[node * width + c];
    }

    template <int vectors>
    void apply(Index p, const std::int32_t* reads, Index number, Index fields, Index place, Index wanted) {
        const std::int32_t* bounds = turned.bounds + turned.read_starts[p];
        for (Index read = 0; read < number; ++read)
            sum_list<vectors>(turned.node + bounds[read], turned.weight + bounds[read], bounds[read + 1] - bounds[read],
                              kernel.data(), folded.data() + read * width, width);
        Index step = halo_rows * width;
        for (int v = 0; v < vectors; v += 2) {
            constexpr int pair = vectors > 1 ? 2 : 1;
            Index at = v + pair > vectors ? (vectors - pair) * lanes : v * lanes;  // some of it again, where they are odd
            auto sum = [&](auto count, Index f) {
                sum_reads<count(), pair>(reads, number, folded.data() + at, halo.data() + f * step + at, step, width,
                                         result.data() + f * width + at);
            };
            together(fields, [&](Index f) { sum(std::integral_constant<int, TOGETHER>{}, f); },
                     [&](Index f) { sum(std::integral_constant<int, 1>{}, f); });
        }
        for (Index f = 0; f < fields; ++f)
            for (Index c = 0; c < wanted; ++c) put(x.out + place + f * x.channels + c, result[f * width + c]);
    }

    template <int vectors>
    void correlate(Index p, const std::int32_t* reads, Index number, Index fields, Index place, Index wanted) {
        for (Index f = 0; f < fields; ++f)
            for (Index c = 0; c < width; ++c)
                other[f * width + c] = c < wanted ? wide(x.other[place + f * x.channels + c]) : T(0);
        for (int v = 0; v < vectors; v += 2) {
            constexpr int pair = vectors > 1 ? 2 : 1;
            Index at = v + pair > vectors ? (vectors - pair) * lanes : v * lanes;
            auto sum = [&](auto count, Index r) {
                sum_fields<count(), pair>(reads + r, fields, halo.data() + at, halo_rows * width, other.data() + at, width,
                                          folded.data() + at);
            };
            together(number, [&](Index r) { sum(std::integral_constant<int, TOGETHER>{}, r); },
                     [&](Index r) { sum(std::integral_constant<int, 1>{}, r); });
        }
        T sum[vectors * lanes];
        for (Index node = 0; node < x.patches.nodes; ++node) {
            Index first = x.patches.starts[p * x.patches.nodes + node], last = x.patches.starts[p * x.patches.nodes + node + 1];
            if (first == last) continue;
            sum_list<vectors>(x.patches.index + first, x.patches.weight + first, last - first, folded.data(), sum, width);
            for (Index c = 0; c < width; ++c) total_strip[node * width + c] += sum[c];
        }
    }
};

template <class S>
void run(const Pass<S>& x, const Turned<typename Sum<S>::type>& turned) {
    Index blocks = parts(x.fields, FIELDS);
    run_tasks(x, blocks, [&] { return Worker<S>(x, turned, parts(x.fields, blocks)); });
}

}  // namespace inrbridge

#define TURNED_ARGUMENTS(T)                                                                                                      \
    const std::int32_t *read_starts, const std::int32_t *reads, const std::int32_t *bounds, const std::int32_t *node,            \
        const T *turned
#define TURNED                                                                                                                   \
    { read_starts, reads, bounds, node, turned }

extern "C" {
void depthwise_float32(PASS_ARGUMENTS(float, float), TURNED_ARGUMENTS(float)) { inrbridge::run(PASS(float), TURNED); }
void depthwise_float64(PASS_ARGUMENTS(double, double), TURNED_ARGUMENTS(double)) { inrbridge::run(PASS(double), TURNED); }
void depthwise_bfloat16(PASS_ARGUMENTS(inrbridge::bfloat16, float), TURNED_ARGUMENTS(float)) {
    inrbridge::run(PASS(inrbridge::bfloat16), TURNED);
}
}

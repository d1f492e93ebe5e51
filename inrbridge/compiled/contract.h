// Floor 1: sums of neighbours: the values of a sampled function at the kernel nodes of a patch of points.
//
// Patches (patches.cpp): the points of patch p are order[p * size] and following, what they read is its halo. Row
// `node` of the point at place `at` of the order sums weight[e] times row index[e] of the halo, for e from starts[at * nodes +
// node] to the next start. Values lie points first, (n, fields, channels), so that a neighbour is one contiguous row.
#pragma once

#include "gemm.h"

namespace inrbridge {

template <class T>
struct Patches {
    const std::int32_t* order;        // (points,)
    const std::int32_t* starts;       // (points * nodes + 1,)
    const std::int32_t* index;        // (e,): places in a halo
    const T* weight;                  // (e,)
    const std::int32_t* halo_starts;  // (patches + 1,)
    const std::int32_t* halo;         // rows of the source
    Index points, nodes, size;

    Index longest_halo() const {
        Index longest = 0;
        for (Index p = 0; p * size < points; ++p)
            if (halo_starts[p + 1] - halo_starts[p] > longest) longest = halo_starts[p + 1] - halo_starts[p];
        return longest;
    }
};

constexpr Index AHEAD = 8;  // rows of a halo that are on their way from memory
constexpr Index STRIP = 8;  // vectors of a row that are summed together, in as many registers

// The halo of a patch, copied to where its rows do not fight for the same places of a cache: strips of STRIP vectors, the last
// one narrower, filled up with zeros to whole vectors; row by row inside a strip.
template <class T, class S>
void gather(const Patches<T>& patches, Index patch, const S* source, Index stride, Index length, T* to) {
    constexpr Index lanes = Vector<T>::lanes;
    const std::int32_t* halo = patches.halo + patches.halo_starts[patch];
    Index rows = patches.halo_starts[patch + 1] - patches.halo_starts[patch];
    for (Index row = 0; row < rows; ++row) {
        const S* from = source + halo[row] * stride;
        if (row + AHEAD < rows) {
            const char* next = reinterpret_cast<const char*>(source + halo[row + AHEAD] * stride);
            for (Index byte = 0; byte < length * Index(sizeof(S)); byte += 64) __builtin_prefetch(next + byte);
        }
        T* strip = to;
        for (Index first = 0; first < length; first += STRIP * lanes) {
            Index wanted = length - first < STRIP * lanes ? length - first : STRIP * lanes;
            Index width = round_up(wanted, lanes), x = 0;
            for (; x + lanes <= wanted; x += lanes) store(strip + row * width + x, load(from + first + x));
            for (; x < width; ++x) strip[row * width + x] = x < wanted ? wide(from[first + x]) : T(0);
            strip += rows * width;
        }
    }
}

// Sums `vectors` vectors of one list. Short rows alternate between sums, or each product would wait for the one before.
template <int vectors, class T>
inline void sum_list(const std::int32_t* index, const T* weight, Index count, const T* strip, T* to, Index wanted) {
    constexpr int turns = vectors > 4 ? 1 : vectors > 2 ? 2 : 4;
    constexpr Index lanes = Vector<T>::lanes, width = vectors * lanes;
    Numbers<T> sum[turns][vectors] = {};
    Index e = 0;
    for (; e + turns <= count; e += turns)
#pragma GCC unroll 4
        for (int turn = 0; turn < turns; ++turn)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v)
                sum[turn][v] += weight[e + turn] * load(strip + index[e + turn] * width + v * lanes);
    for (; e < count; ++e)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sum[0][v] += weight[e] * load(strip + index[e] * width + v * lanes);
#pragma GCC unroll 4
    for (int turn = 1; turn < turns; ++turn)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sum[0][v] += sum[turn][v];
    if (wanted == width) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) store(to + v * lanes, sum[0][v]);
    } else {
        T spare[width];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) store(spare + v * lanes, sum[0][v]);
        std::memcpy(to, spare, wanted * sizeof(T));
    }
}

// A run of nodes of a patch.
struct Run {
    Index patch, points, first_node, nodes;
};

template <int vectors, class T>
void contract_strip(const Patches<T>& patches, const Run& run, const T* strip, Index wanted, T* to, Index length) {
    const std::int32_t* start = patches.starts + run.patch * patches.size * patches.nodes + run.first_node;
    for (Index p = 0; p < run.points; ++p, start += patches.nodes)
        for (Index node = 0; node < run.nodes; ++node)
            sum_list<vectors>(patches.index + start[node], patches.weight + start[node], start[node + 1] - start[node], strip,
                              to + (node * run.points + p) * length, wanted);
}

// to[node][point][x] = sum_j P[point, node, j] halo[j][x]: strip by strip, so that a strip stays in the first cache while
// neighbouring points share it.
template <class T>
void contract(const Patches<T>& patches, const Run& run, const T* gathered, Index length, T* to) {
    constexpr Index lanes = Vector<T>::lanes;
    Index rows = patches.halo_starts[run.patch + 1] - patches.halo_starts[run.patch];
    for (Index first = 0; first < length; first += STRIP * lanes) {
        Index wanted = length - first < STRIP * lanes ? length - first : STRIP * lanes;
        Index vectors = (wanted + lanes - 1) / lanes;
        switch (vectors) {
#define CASE(count) \
    case count: contract_strip<count>(patches, run, gathered, wanted, to + first, length); break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
        }
        gathered += rows * vectors * lanes;
    }
}

}  // namespace inrbridge

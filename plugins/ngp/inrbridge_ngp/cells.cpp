// Which rows of a multiresolution grid's table surround points, and with which weights; `GridSpec.cells` is the slow twin.
//
//   place = scale u + shift,   low = floor(place),   high = low + 1 or ceil(place)     along each axis of each level
//   row   = first + (sum_d or xor_d of end_d factor_d, in unsigned 32-bit numbers) mod size
//   weight = prod_d of 1 - t_d at low and t_d at high,   t = place - low or its smoothstep
//
// points (m, dim); rows and weights (levels, m, corners) with corners = 2^dim, the end along the last axis fastest, or 1, that of
// the low ends. Each step runs along a few points at once, which stay in cache with all their corners. Every number is rounded
// where the slow twin rounds it, so that both find the same rows.

// a product must not lose its rounding in a fused multiply-add
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm.h"

namespace inrbridge {
namespace {

using Bits = std::uint32_t;

constexpr Index RUN = 64;  // points that go through all steps together

struct Level {
    double scale;
    Index size, first, hashed, factors[7];  // rows, the first of them, and how the ends along each axis number them
};

struct Grid {
    const Level* levels;
    Index count, dim;
    double shift;
    bool wide, ceils, smooth, nearest;  // places in double, rounded once; high = ceil(place); smoothstep; one corner

    Index corners() const { return nearest ? 1 : Index(1) << dim; }
};

// What a thread needs for a run of points, (.., RUN) each.
template <class T>
struct Room {
    std::vector<T> points, weights;
    std::vector<Bits> rows;

    explicit Room(const Grid& grid) : points(grid.dim * RUN), weights(grid.corners() * RUN), rows(grid.corners() * RUN) {}
};

template <class T>
void place(const Grid& grid, double scale, const T* points, T* places) {
    const double shift = grid.shift;
    if (grid.wide)
        for (Index p = 0; p < RUN; ++p) places[p] = T(double(points[p]) * scale + shift);
    else
        for (Index p = 0; p < RUN; ++p) places[p] = points[p] * T(scale) + T(shift);
}

// The lowest 32 bits of whole numbers; beyond 64 bits they are what this machine makes of them.
template <class T>
void keep_bits(const T* numbers, Bits* bits) {
    int far = 0;
    for (Index p = 0; p < RUN; ++p) far |= !(std::abs(numbers[p]) < T(2147483648.0));
    if (far)
        for (Index p = 0; p < RUN; ++p) bits[p] = Bits(std::int64_t(numbers[p]));
    else
        for (Index p = 0; p < RUN; ++p) bits[p] = Bits(std::int32_t(numbers[p]));
}

// From `held` corners to those at both ends of a further axis, from behind: what is read is not yet overwritten.
template <class T, class Join>
void extend(T* corners, Index held, const T* low, const T* high, const Join& join) {
    for (Index i = held - 1; i >= 0; --i) {
        const T* from = corners + i * RUN;
        T *below = corners + 2 * i * RUN, *above = below + RUN;
#pragma omp simd
        for (Index p = 0; p < RUN; ++p) {
            const T known = from[p];
            below[p] = join(known, low[p]);
            above[p] = join(known, high[p]);
        }
    }
}

void number(bool hashed, Bits* rows, Index held, const Bits* low, const Bits* high) {
    if (hashed) return extend(rows, held, low, high, [](Bits a, Bits b) { return a ^ b; });
    extend(rows, held, low, high, [](Bits a, Bits b) { return a + b; });
}

// The same at the low end alone.
void number_low(bool hashed, Bits* rows, const Bits* low) {
    for (Index p = 0; p < RUN; ++p) rows[p] = hashed ? rows[p] ^ low[p] : rows[p] + low[p];
}

void wrap(Bits* rows, Index count, Bits size) {
    if ((size & (size - 1)) == 0) {
        for (Index i = 0; i < count; ++i) rows[i] &= size - 1;
        return;
    }
    Bits most = 0;
    for (Index i = 0; i < count; ++i) most = std::max(most, rows[i]);
    if (most / size < 2)  // points in the cube are less than one turn beyond: no division is needed
        for (Index i = 0; i < count; ++i) rows[i] = std::min(rows[i], rows[i] - size);  // the smaller one, for below 0 is far above
    else
        for (Index i = 0; i < count; ++i) rows[i] %= size;
}

// to[p][q] = first + from[q][p] for the points p < count.
template <int K = 0, class From, class To>
void turn(const From* from, Index count, Index corners, To first, To* to) {
    const Index step = K ? K : corners;
    for (Index p = 0; p < count; ++p)
        for (Index q = 0; q < step; ++q) to[p * step + q] = first + To(from[q * RUN + p]);
}

template <class From, class To>
void write(const From* from, Index count, Index corners, To first, To* to) {
    if (corners == 2) return turn<2>(from, count, corners, first, to);
    if (corners == 4) return turn<4>(from, count, corners, first, to);
    if (corners == 8) return turn<8>(from, count, corners, first, to);
    turn(from, count, corners, first, to);
}

// Rows and weights of a level's corners around the points of `room`, into it.
template <class T>
void find_level(const Grid& grid, const Level& level, Room<T>& room) {
    const bool hashed = level.hashed;
    T places[RUN], floors[RUN], low[RUN], high[RUN];
    Bits ends[2][RUN];
    std::fill_n(room.rows.begin(), RUN, Bits(0));
    std::fill_n(room.weights.begin(), RUN, T(1));
    for (Index d = 0; d < grid.dim; ++d) {
        const Bits factor = Bits(level.factors[d]);
        place(grid, level.scale, room.points.data() + d * RUN, places);
        for (Index p = 0; p < RUN; ++p) floors[p] = std::floor(places[p]);
        keep_bits(floors, ends[0]);
        for (Index p = 0; p < RUN; ++p) ends[1][p] = (ends[0][p] + 1) * factor;
        for (Index p = 0; p < RUN; ++p) ends[0][p] *= factor;
        if (grid.nearest) {
            number_low(hashed, room.rows.data(), ends[0]);
            continue;
        }
        for (Index p = 0; p < RUN; ++p) high[p] = places[p] - floors[p];
        if (grid.ceils) {
            for (Index p = 0; p < RUN; ++p) floors[p] = std::ceil(places[p]);
            keep_bits(floors, ends[1]);
            for (Index p = 0; p < RUN; ++p) ends[1][p] *= factor;
        }
        if (grid.smooth)
            for (Index p = 0; p < RUN; ++p) high[p] = high[p] * high[p] * (3 - 2 * high[p]);
        for (Index p = 0; p < RUN; ++p) low[p] = 1 - high[p];
        number(hashed, room.rows.data(), Index(1) << d, ends[0], ends[1]);
        extend(room.weights.data(), Index(1) << d, low, high, [](T a, T b) { return a * b; });
    }
    wrap(room.rows.data(), grid.corners() * RUN, Bits(level.size));
}

template <class T, class Row>
void find(const Grid& grid, const T* points, Index m, Row* rows, T* weights) {
    const Index corners = grid.corners(), runs = (m + RUN - 1) / RUN;
#pragma omp parallel if (m * grid.count > 16 * RUN)
    {
        Room<T> room(grid);
#pragma omp for schedule(static)
        for (Index run = 0; run < runs; ++run) {
            const Index start = run * RUN, count = std::min(RUN, m - start);
            for (Index d = 0; d < grid.dim; ++d)
                for (Index p = 0; p < RUN; ++p) room.points[d * RUN + p] = points[(start + std::min(p, count - 1)) * grid.dim + d];
            for (Index v = 0; v < grid.count; ++v) {
                find_level(grid, grid.levels[v], room);
                const Index at = (v * m + start) * corners;
                write(room.rows.data(), count, corners, Row(grid.levels[v].first), rows + at);
                write(room.weights.data(), count, corners, T(0), weights + at);
            }
        }
    }
}

template <class T>
void find_any(const Grid& grid, const T* points, Index m, Index row_bytes, void* rows, T* weights) {
    if (row_bytes == 4) return find(grid, points, m, static_cast<std::int32_t*>(rows), weights);
    find(grid, points, m, static_cast<std::int64_t*>(rows), weights);
}

}  // namespace
}  // namespace inrbridge

using namespace inrbridge;

#define GRID const Level *levels, Index count, Index dim, double shift, Index wide, Index ceils, Index smooth, Index nearest
#define GIVEN Grid{levels, count, dim, shift, wide != 0, ceils != 0, smooth != 0, nearest != 0}

extern "C" {
void cells_float(GRID, const float* points, Index m, Index row_bytes, void* rows, float* weights) {
    find_any(GIVEN, points, m, row_bytes, rows, weights);
}
void cells_double(GRID, const double* points, Index m, Index row_bytes, void* rows, double* weights) {
    find_any(GIVEN, points, m, row_bytes, rows, weights);
}
}

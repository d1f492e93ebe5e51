// Floor 1: sums of weighted rows of the tables of b fields, and their two derivatives.
//
//   sum:     out[i][p][v][c]       = sum_q weights[v][i][p][q] * table[i][rows[v][i][p][q]][c]
//   spread:  table[i][r][c]       += sum over v, p, q with rows[v][i][p][q] = r of weights[v][i][p][q] * grad[i][p][v][c]
//   dots:    out[v][i][p][q]       = sum_c table[i][rows[v][i][p][q]][c] * grad[i][p][v][c]
//
// i < b fields, p < n points, v < levels, q < corners of a level's cell, c < width columns. Where all fields share their points,
// rows and weights have no axis i, and dots are summed over it. Number c of row r of field i stands at
// table[i * field_step + r * row_step + c]: tables lie one after the other, or side by side (field_step = width), where row r
// of all fields is one piece of memory. Rows are scattered, so that each would wait for memory: those of points further on are
// fetched ahead. Points or fields are shared among threads so that every number is summed in one order.

#include <algorithm>
#include <vector>

#include "gemm.h"

namespace inrbridge {
namespace {

constexpr Index AHEAD = 16;             // points whose rows are on their way
constexpr Index NEXT = 2;               // the same where a row holds all fields
constexpr Index RUN = 1024;             // points of one field in one run
constexpr Index SHARED_RUN = 256;       // points of all fields in one run
constexpr Index FIELDS = 4;             // fields that go through a tile at once
constexpr Index TILE_BYTES = 24 << 10;  // of the sums of a tile of points

struct Sizes {
    Index b, levels, n, corners, width, field_step, row_step, shared;

    Index place(Index level, Index field, Index point) const {  // of a cell in rows and weights
        return ((shared ? level : level * b + field) * n + point) * corners;
    }
    Index value(Index field, Index point) const { return (field * n + point) * levels * width; }
    bool side_by_side() const { return shared && field_step == width && b > 1; }
};

// W numbers of a row, as they are summed: single ones in scalar registers, more of them in vectors.
template <class N, int W>
struct Some {
    typedef N type __attribute__((vector_size(W * sizeof(N))));
};
template <class N>
struct Some<N, 1> {
    typedef N type;
};
template <class T, int W>
using Lanes = typename Some<typename Sum<T>::type, W>::type;

template <int W, class T>
inline Lanes<T, W> read(const T* from) {
    Lanes<T, W> value;
    if constexpr (!std::is_same_v<T, bfloat16>) {
        std::memcpy(&value, from, sizeof value);
    } else if constexpr (W == 1) {
        value = widen(*from);
    } else {
        typename Some<std::uint16_t, W>::type half;
        std::memcpy(&half, from, sizeof half);
        auto bits = __builtin_convertvector(half, typename Some<std::uint32_t, W>::type) << 16;
        std::memcpy(&value, &bits, sizeof value);
    }
    return value;
}

template <int W, class A>
inline void write(A* to, Lanes<A, W> value) {
    std::memcpy(to, &value, sizeof value);
}

// Calls run(first column, W, U) for pieces of W * U columns that together make `width`.
template <class A, class Run>
inline void over_columns(Index width, const Run& run) {
    constexpr int lanes = Vector<A>::lanes;
    Index c = 0;
    for (; c + 12 * lanes <= width; c += 12 * lanes) run(c, std::integral_constant<int, lanes>{}, std::integral_constant<int, 12>{});
    for (; c + 2 * lanes <= width; c += 2 * lanes) run(c, std::integral_constant<int, lanes>{}, std::integral_constant<int, 2>{});
    for (; c + lanes <= width; c += lanes) run(c, std::integral_constant<int, lanes>{}, std::integral_constant<int, 1>{});
    for (; c + 4 <= width; c += 4) run(c, std::integral_constant<int, 4>{}, std::integral_constant<int, 1>{});
    for (; c + 3 <= width; c += 3) run(c, std::integral_constant<int, 1>{}, std::integral_constant<int, 3>{});
    for (; c + 2 <= width; c += 2) run(c, std::integral_constant<int, 1>{}, std::integral_constant<int, 2>{});
    if (c < width) run(c, std::integral_constant<int, 1>{}, std::integral_constant<int, 1>{});
}

// The corners of one cell: out[c] = sum_q weights[q] table[rows[q]][c] for W * U columns; K corners where K > 0.
template <int W, int U, int K = 0, class T, class A>
inline void sum_cell(const T* table, Index row_step, const std::int32_t* rows, const A* weights, Index corners, A* out) {
    Lanes<A, W> sum[U] = {};
    for (Index q = 0; q < (K ? K : corners); ++q) {
        const T* row = table + rows[q] * row_step;
#pragma GCC unroll 12
        for (int u = 0; u < U; ++u) sum[u] += weights[q] * read<W>(row + u * W);
    }
#pragma GCC unroll 12
    for (int u = 0; u < U; ++u) write<W>(out + u * W, sum[u]);
}

// table[rows[q]][c] += weights[q] grad[c].
template <int W, int U, class A>
inline void spread_cell(A* table, Index row_step, const std::int32_t* rows, const A* weights, Index corners, const A* grad) {
    for (Index q = 0; q < corners; ++q) {
        A* row = table + rows[q] * row_step;
#pragma GCC unroll 12
        for (int u = 0; u < U; ++u) write<W>(row + u * W, read<W>(row + u * W) + weights[q] * read<W>(grad + u * W));
    }
}

// out[q] += sum_c table[rows[q]][c] grad[c].
template <int W, int U, class A>
inline void dot_cell(const A* table, Index row_step, const std::int32_t* rows, const A* grad, Index corners, A* out) {
    for (Index q = 0; q < corners; ++q) {
        const A* row = table + rows[q] * row_step;
        Lanes<A, W> sum{};
#pragma GCC unroll 12
        for (int u = 0; u < U; ++u) sum += read<W>(grad + u * W) * read<W>(row + u * W);
        if constexpr (W == 1)
            out[q] += sum;
        else
            for (int lane = 0; lane < W; ++lane) out[q] += sum[lane];
    }
}

// Asks for one line of each row of a cell.
template <int writes = 0, class T>
inline void fetch(const T* table, Index row_step, const std::int32_t* rows, Index corners) {
    for (Index q = 0; q < corners; ++q) __builtin_prefetch(table + rows[q] * row_step, writes);
}

template <class T, class A>
void sum_one_by_one(const Sizes& s, const T* table, const std::int32_t* rows, const A* weights, A* out) {
    Index runs = (s.n + RUN - 1) / RUN;
#pragma omp parallel for schedule(static)
    for (Index unit = 0; unit < s.b * runs; ++unit) {
        Index i = unit / runs, first = unit % runs * RUN, stop = std::min(first + RUN, s.n);
        for (Index v = 0; v < s.levels; ++v)
            over_columns<A>(s.width, [&](Index c, auto w, auto u) {
                const T* from = table + i * s.field_step + c;
                auto run = [&](auto k) {
                    for (Index p = first; p < stop; ++p) {
                        Index at = s.place(v, i, p);
                        fetch(from, s.row_step, rows + s.place(v, i, std::min(p + AHEAD, stop - 1)), k ? Index(k) : s.corners);
                        A* to = out + s.value(i, p) + v * s.width + c;
                        sum_cell<w(), u(), k()>(from, s.row_step, rows + at, weights + at, s.corners, to);
                    }
                };
                if (s.corners == 4) return run(std::integral_constant<int, 4>{});
                if (s.corners == 8) return run(std::integral_constant<int, 8>{});
                run(std::integral_constant<int, 0>{});
            });
    }
}

// Calls visit(number of (b, n, levels, width), its place in a tile of points (tile, levels, b, width), count) for pieces of `count`
// numbers, a constant, that together make points first to stop. A few fields at once go through the tile line by line.
template <class A, class Visit>
inline void over_tile(const Sizes& s, Index first, Index stop, const Visit& visit) {
    const Index cells = (stop - first) * s.levels, step = s.value(1, 0);
    over_columns<A>(s.width, [&](Index c, auto w, auto u) {
        constexpr std::integral_constant<Index, w() * u()> count{};
        for (Index i = 0; i < s.b; i += FIELDS) {
            const Index fields = std::min(FIELDS, s.b - i);
            Index number = s.value(i, first) + c, place = i * s.width + c;
            for (Index cell = 0; cell < cells; ++cell, number += s.width, place += s.b * s.width) {
                if (fields == FIELDS)
                    for (Index j = 0; j < FIELDS; ++j) visit(number + j * step, place + j * s.width, count);
                else
                    for (Index j = 0; j < fields; ++j) visit(number + j * step, place + j * s.width, count);
            }
        }
    });
}

// Calls see(sums, first, stop) for tiles of points, with room for the numbers of all fields.
template <class A, class See>
void over_tiles(const Sizes& s, const See& see) {
    const Index wide = s.levels * s.b * s.width, tile = std::clamp<Index>(TILE_BYTES / (wide * Index(sizeof(A))), 1, AHEAD);
    const Index tiles = (s.n + tile - 1) / tile;
#pragma omp parallel
    {
        std::vector<A> sums(tile * wide);
#pragma omp for schedule(static)
        for (Index t = 0; t < tiles; ++t) see(sums.data(), t * tile, std::min(t * tile + tile, s.n));
    }
}

// Calls see(weights or dots of a cell, rows, sums, columns..) for the cells of points first to stop, rows side by side.
template <class T, class See>
inline void over_cells(const Sizes& s, const T* table, const std::int32_t* rows, Index first, Index stop, const See& see) {
    const Index wide = s.b * s.width;
    for (Index p = first, cell = 0; p < stop; ++p)
        for (Index v = 0; v < s.levels; ++v, ++cell) {
            fetch(table, s.row_step, rows + s.place(v, 0, std::min(p + NEXT, s.n - 1)), s.corners);
            over_columns<typename Sum<T>::type>(wide, [&](Index c, auto w, auto u) { see(s.place(v, 0, p), c, cell * wide + c, w, u); });
        }
}

// The same for rows of 8 bytes, the most frequent ones: blocks of FIELDS fields and as many cells are turned in registers.
template <class A>
inline void turn_pairs(const Sizes& s, Index first, Index stop, const A* sums, A* out) {
    typedef double Piece __attribute__((vector_size(FIELDS * sizeof(double))));
    const Index cells = (stop - first) * s.levels;
    const double* from = reinterpret_cast<const double*>(sums);
    double* to = reinterpret_cast<double*>(out) + s.value(0, first) / s.width;
    const Index step = s.n * s.levels, whole_fields = s.b / FIELDS * FIELDS, whole_cells = cells / FIELDS * FIELDS;
    for (Index i = 0; i < whole_fields; i += FIELDS)
        for (Index cell = 0; cell < whole_cells; cell += FIELDS) {
            Piece rows[FIELDS], columns[FIELDS];
            for (Index k = 0; k < FIELDS; ++k) std::memcpy(&rows[k], from + (cell + k) * s.b + i, sizeof(Piece));
            for (Index j = 0; j < FIELDS; ++j) columns[j] = Piece{rows[0][j], rows[1][j], rows[2][j], rows[3][j]};
            for (Index j = 0; j < FIELDS; ++j) std::memcpy(to + (i + j) * step + cell, &columns[j], sizeof(Piece));
        }
    for (Index i = 0; i < s.b; ++i)
        for (Index cell = i < whole_fields ? whole_cells : 0; cell < cells; ++cell)
            std::memcpy(to + i * step + cell, from + cell * s.b + i, sizeof(double));
}

template <class T, class A>
void sum_side_by_side(const Sizes& s, const T* table, const std::int32_t* rows, const A* weights, A* out) {
    over_tiles<A>(s, [&](A* sums, Index first, Index stop) {
        over_cells(s, table, rows, first, stop, [&](Index at, Index c, Index to, auto w, auto u) {
            sum_cell<w(), u()>(table + c, s.row_step, rows + at, weights + at, s.corners, sums + to);
        });
        if (s.width * sizeof(A) == sizeof(double)) return turn_pairs(s, first, stop, sums, out);
        over_tile<A>(s, first, stop, [&](Index number, Index place, auto count) {
            std::memcpy(out + number, sums + place, count() * sizeof(A));
        });
    });
}

template <class T, class A>
void sum(const Sizes& s, const T* table, const std::int32_t* rows, const A* weights, A* out) {
    if (s.side_by_side()) return sum_side_by_side(s, table, rows, weights, out);
    sum_one_by_one(s, table, rows, weights, out);
}

// A thread has whole fields, and so the numbers that it adds to.
template <class A>
void spread(const Sizes& s, const std::int32_t* rows, const A* weights, const A* grad, A* table) {
#pragma omp parallel for schedule(static)
    for (Index i = 0; i < s.b; ++i)
        for (Index v = 0; v < s.levels; ++v)
            over_columns<A>(s.width, [&](Index c, auto w, auto u) {
                A* to = table + i * s.field_step + c;
                for (Index p = 0; p < s.n; ++p) {
                    Index at = s.place(v, i, p);
                    fetch<1>(to, s.row_step, rows + s.place(v, i, std::min(p + AHEAD, s.n - 1)), s.corners);
                    const A* given = grad + s.value(i, p) + v * s.width + c;
                    spread_cell<w(), u()>(to, s.row_step, rows + at, weights + at, s.corners, given);
                }
            });
}

template <class A>
void dots_one_by_one(const Sizes& s, const A* table, const std::int32_t* rows, const A* grad, A* out) {
    Index length = s.shared ? SHARED_RUN : RUN, runs = (s.n + length - 1) / length, fields = s.shared ? s.b : 1;
#pragma omp parallel for schedule(static)
    for (Index unit = 0; unit < s.b / fields * runs; ++unit) {
        Index first = unit % runs * length, stop = std::min(first + length, s.n), field = unit / runs;
        for (Index i = field; i < field + fields; ++i)
            for (Index v = 0; v < s.levels; ++v)
                over_columns<A>(s.width, [&](Index c, auto w, auto u) {
                    const A* from = table + i * s.field_step + c;
                    for (Index p = first; p < stop; ++p) {
                        Index at = s.place(v, i, p);
                        fetch(from, s.row_step, rows + s.place(v, i, std::min(p + AHEAD, stop - 1)), s.corners);
                        const A* given = grad + s.value(i, p) + v * s.width + c;
                        dot_cell<w(), u()>(from, s.row_step, rows + at, given, s.corners, out + at);
                    }
                });
    }
}

template <class A>
void dots(const Sizes& s, const A* table, const std::int32_t* rows, const A* grad, A* out) {
    if (!s.side_by_side()) return dots_one_by_one(s, table, rows, grad, out);
    over_tiles<A>(s, [&](A* given, Index first, Index stop) {
        over_tile<A>(s, first, stop, [&](Index number, Index place, auto count) {
            std::memcpy(given + place, grad + number, count() * sizeof(A));
        });
        over_cells(s, table, rows, first, stop, [&](Index at, Index c, Index from, auto w, auto u) {
            dot_cell<w(), u()>(table + c, s.row_step, rows + at, given + from, s.corners, out + at);
        });
    });
}

}  // namespace
}  // namespace inrbridge

using namespace inrbridge;

#define SIZES Index b, Index levels, Index n, Index corners, Index width, Index field_step, Index row_step, Index shared
#define GIVEN Sizes{b, levels, n, corners, width, field_step, row_step, shared}

extern "C" {
void sum_float(const float* t, const std::int32_t* r, const float* w, float* out, SIZES) { sum(GIVEN, t, r, w, out); }
void sum_double(const double* t, const std::int32_t* r, const double* w, double* out, SIZES) { sum(GIVEN, t, r, w, out); }
void sum_bfloat16(const bfloat16* t, const std::int32_t* r, const float* w, float* out, SIZES) { sum(GIVEN, t, r, w, out); }
void spread_float(const std::int32_t* r, const float* w, const float* g, float* out, SIZES) { spread(GIVEN, r, w, g, out); }
void spread_double(const std::int32_t* r, const double* w, const double* g, double* out, SIZES) { spread(GIVEN, r, w, g, out); }
void dots_float(const float* t, const std::int32_t* r, const float* g, float* out, SIZES) { dots(GIVEN, t, r, g, out); }
void dots_double(const double* t, const std::int32_t* r, const double* g, double* out, SIZES) { dots(GIVEN, t, r, g, out); }
}

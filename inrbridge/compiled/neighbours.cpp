// Neighbours by cell lists: points are counted into the cells of a grid, and a search looks through the cells that it touches.
//
// A cell list holds the points cell after cell, ascending in a cell: `order` (n) says which point stands at a place, `places`
// (d, n) its coordinates, one axis after the other, `starts` (cells + 1) where each cell begins. Cells are row-major, so that
// those beside each other along the last axis are one piece of memory. An axis with a period above 0 closes on itself; distances
// along it go the short way around. Every result is a function of the points alone: not of the cells, the order of visits, or
// the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using Index = int64_t;

template <int D>
struct Cells {
    Index n;
    const double *low, *size;  // (d): corner and edges of the first cell
    const Index* shape;        // (d)
    const double* periods;     // (d)
    const Index *starts, *order;
    const double* places;

    Index along(int axis, double x) const {  // unbounded
        return static_cast<Index>(std::floor(std::clamp((x - low[axis]) / size[axis], -1e15, 1e15)));
    }

    Index bounded(int axis, double x) const { return std::clamp<Index>(along(axis, x), 0, shape[axis] - 1); }

    Index of(const double* point) const {
        Index cell = 0;
        for (int a = 0; a < D; ++a) cell = cell * shape[a] + bounded(a, point[a]);
        return cell;
    }

    // Calls see(first, last) with pieces of the list that together hold, once, every point between `from` and `to`.
    template <class See>
    void touch(const double* from, const double* to, See see) const {
        Index first[D], last[D];
        for (int a = 0; a < D; ++a) {
            if (periods[a] > 0) {
                first[a] = along(a, from[a]);
                last[a] = std::min(along(a, to[a]), first[a] + shape[a] - 1);
            } else {
                first[a] = bounded(a, from[a]);
                last[a] = bounded(a, to[a]);
            }
        }
        row<0>(0, first, last, see);
    }

    template <int A, class See>
    void row(Index cell, const Index* first, const Index* last, See see) const {
        Index width = shape[A], start = first[A], count = last[A] - first[A] + 1;
        start -= static_cast<Index>(std::floor(static_cast<double>(start) / width)) * width;
        if constexpr (A + 1 < D) {
            for (Index c = 0; c < count; ++c, start = start + 1 == width ? 0 : start + 1)
                row<A + 1>((cell + start) * shape[A + 1], first, last, see);
        } else {
            Index before = std::min(count, width - start);
            see(starts[cell + start], starts[cell + start + before]);
            if (before < count) see(starts[cell], starts[cell + count - before]);
        }
    }

    // The way from x to the point at a place, along an axis.
    template <bool Around>
    double way(int axis, Index place, double x) const {
        double step = places[axis * n + place] - x;
        if constexpr (Around)
            if (periods[axis] > 0) step -= periods[axis] * std::nearbyint(step / periods[axis]);
        return step;
    }

    template <bool Around>
    double square(Index place, const double* x) const {
        double sum = 0;
        for (int a = 0; a < D; ++a) {
            double step = way<Around>(a, place, x[a]);
            sum += step * step;
        }
        return sum;
    }
};

// Room that one thread uses again for every query.
struct Room {
    std::vector<double> squares = std::vector<double>(256);
    std::vector<int32_t> places = std::vector<int32_t>(256);

    void hold(Index count) {
        if (static_cast<Index>(places.size()) < count + 16) {
            squares.resize(2 * count + 16);
            places.resize(2 * count + 16);
        }
    }
};

// Puts different numbers in ascending order. The rank of one is how many are smaller: few are soonest compared with all.
void ascend(int32_t* keys, Index count, Index* sorted) {
    if (count > 96) {
        std::sort(keys, keys + count);
        std::copy(keys, keys + count, sorted);
        return;
    }
    Index padded = (count + 15) / 16 * 16;
    std::fill(keys + count, keys + padded, INT32_MAX);
    for (Index a = 0; a < count; ++a) {
        int32_t rank = 0;
        for (Index b = 0; b < padded; ++b) rank += keys[b] < keys[a];
        sorted[rank] = keys[a];
    }
}

// Brings the `count` places of smallest squares, in ascending order, to the front; equal squares in the order of `order`.
void choose(Room& room, Index held, Index count, const Index* order) {
    std::vector<std::pair<double, int32_t>> pairs;
    double* squares = room.squares.data();
    int32_t* places = room.places.data();
    auto before = [&](double square, int32_t place, double other, int32_t others) {
        return square < other || (square == other && order[place] < order[others]);
    };
    if (held > 96) {
        for (Index a = 0; a < held; ++a) pairs.emplace_back(squares[a], places[a]);
        std::partial_sort(pairs.begin(), pairs.begin() + count, pairs.end(),
                          [&](auto a, auto b) { return before(a.first, a.second, b.first, b.second); });
        for (Index a = 0; a < count; ++a) std::tie(squares[a], places[a]) = pairs[a];
        return;
    }
    double sorted[96];
    int32_t whose[96];
    Index padded = (held + 7) / 8 * 8;
    std::fill(squares + held, squares + padded, INFINITY);
    std::fill(whose, whose + held, -1);
    for (Index a = 0; a < held; ++a) {
        int64_t rank = 0;
        for (Index b = 0; b < padded; ++b) rank += squares[b] < squares[a];
        while (whose[rank] >= 0 && order[whose[rank]] < order[places[a]]) ++rank;  // equal ones stand together
        double square = squares[a];
        int32_t place = places[a];
        while (whose[rank] >= 0) {
            std::swap(square, sorted[rank]);
            std::swap(place, whose[rank++]);
        }
        sorted[rank] = square;
        whose[rank] = place;
    }
    std::copy(sorted, sorted + count, squares);
    std::copy(whose, whose + count, places);
}

template <int D>
void build(Cells<D> cells, const double* points, Index* starts, Index* order, double* places) {
    Index count = 1;
    for (int a = 0; a < D; ++a) count *= cells.shape[a];
    std::vector<int32_t> where(cells.n);
    std::fill(starts, starts + count + 1, 0);
    for (Index i = 0; i < cells.n; ++i) ++starts[(where[i] = static_cast<int32_t>(cells.of(points + i * D))) + 1];
    for (Index c = 0; c < count; ++c) starts[c + 1] += starts[c];
    for (Index i = 0; i < cells.n; ++i) {
        Index place = starts[where[i]]++;
        order[place] = i;
        for (int a = 0; a < D; ++a) places[a * cells.n + place] = points[i * D + a];
    }
    for (Index c = count; c > 0; --c) starts[c] = starts[c - 1];
    starts[0] = 0;
}

// A box around the origin from `low` to `high`, or the ellipsoid in it; the edge belongs to it.
struct Body {
    const double *low, *high;
};

// Counts (Fill false) or lists, ascending, the points in the body around every query, and the ways to them (p, d).
template <int D, bool Fill, bool Round>
void inside(const Cells<D>& cells, const double* points, const double* queries, Index m, const Index* visit, Body body,
            Index* offsets, Index* columns, double* ways) {
#pragma omp parallel
    {
        Room room;
#pragma omp for schedule(static)
        for (Index v = 0; v < m; ++v) {
            Index i = visit ? visit[v] : v, found = 0;
            double from[D], to[D], middle[D], scale[D];
            for (int a = 0; a < D; ++a) {
                from[a] = queries[i * D + a] + body.low[a];
                to[a] = queries[i * D + a] + body.high[a];
                middle[a] = queries[i * D + a] + (body.low[a] + body.high[a]) / 2;
                scale[a] = 2 / (body.high[a] - body.low[a]);
            }
            cells.touch(from, to, [&](Index first, Index last) {
                if constexpr (Fill) room.hold(found + last - first);
                Index held = found;
                int32_t* out = room.places.data();
                for (Index s = first; s < last; ++s) {
                    bool in = true;
                    double square = 0;
                    for (int a = 0; a < D; ++a) {
                        double x = cells.places[a * cells.n + s];
                        if constexpr (Round) {
                            double part = (x - middle[a]) * scale[a];
                            square += part * part;
                        } else {
                            in &= (x >= from[a]) & (x <= to[a]);
                        }
                    }
                    if constexpr (Round) in = square <= 1.0;
                    if constexpr (Fill) out[held] = static_cast<int32_t>(cells.order[s]);
                    held += in;
                }
                found = held;
            });
            if constexpr (Fill) {
                Index* row = columns + offsets[i];
                ascend(room.places.data(), found, row);
                if (ways)
                    for (Index k = 0; k < found; ++k)
                        for (int a = 0; a < D; ++a) ways[(offsets[i] + k) * D + a] = points[row[k] * D + a] - queries[i * D + a];
            } else {
                offsets[i + 1] = found;
            }
        }
    }
}

// The `count` points nearest to each query, the nearest first, of equally far ones the lower number first.
template <int D, bool Around>
void nearest(const Cells<D>& cells, const double* queries, Index m, Index count, double guess, double* ways, double* distances,
             Index* index) {
#pragma omp parallel
    {
        Room room;
        double radius = guess;
#pragma omp for schedule(static)
        for (Index i = 0; i < m; ++i) {
            Index held = 0;
            const double* x = queries + i * D;
            while (true) {
                held = 0;
                double from[D], to[D], limit = radius * radius;
                for (int a = 0; a < D; ++a) {
                    from[a] = x[a] - radius;
                    to[a] = x[a] + radius;
                }
                cells.touch(from, to, [&](Index first, Index last) {
                    room.hold(held + last - first);
                    Index kept = held;
                    double* squares = room.squares.data();
                    int32_t* places = room.places.data();
                    for (Index s = first; s < last; ++s) {
                        double square = cells.template square<Around>(s, x);
                        squares[kept] = square;
                        places[kept] = static_cast<int32_t>(s);
                        kept += square <= limit;
                    }
                    held = kept;
                });
                if (held >= count) break;
                radius *= held == 0 ? 2.0 : std::clamp(std::pow(1.2 * count / held, 1.0 / D), 1.1, 2.0);
            }
            choose(room, held, count, cells.order);
            for (Index k = 0; k < count; ++k) {
                Index place = room.places[k];
                index[i * count + k] = cells.order[place];
                distances[i * count + k] = std::sqrt(room.squares[k]);
                for (int a = 0; a < D; ++a) ways[(i * count + k) * D + a] = cells.template way<Around>(a, place, x[a]);
            }
            radius = 1.1 * std::sqrt(room.squares[count - 1]) + 1e-300;
        }
    }
}

}  // namespace

#define FOR_DIMENSION(...)                                   \
    switch (d) {                                             \
        case 1: { constexpr int D = 1; __VA_ARGS__; break; } \
        case 2: { constexpr int D = 2; __VA_ARGS__; break; } \
        case 3: { constexpr int D = 3; __VA_ARGS__; break; } \
        case 4: { constexpr int D = 4; __VA_ARGS__; break; } \
    }

extern "C" {

void build_cells(Index d, Index n, const double* low, const double* size, const Index* shape, const double* points, Index* starts,
                 Index* order, double* places) {
    FOR_DIMENSION(build<D>({n, low, size, shape, nullptr, nullptr, nullptr, nullptr}, points, starts, order, places))
}

void count_inside(Index d, Index n, const double* low, const double* size, const Index* shape, const double* periods,
                  const Index* starts, const Index* order, const double* places, const double* queries, Index m,
                  const Index* visit, const double* from, const double* to, Index round, Index* offsets) {
    FOR_DIMENSION((round ? inside<D, false, true> : inside<D, false, false>)({n, low, size, shape, periods, starts, order, places},
                  nullptr, queries, m, visit, {from, to}, offsets, nullptr, nullptr))
}

void list_inside(Index d, Index n, const double* low, const double* size, const Index* shape, const double* periods,
                 const Index* starts, const Index* order, const double* places, const double* queries, Index m,
                 const Index* visit, const double* from, const double* to, Index round, const double* points, Index* offsets,
                 Index* columns, double* ways) {
    FOR_DIMENSION((round ? inside<D, true, true> : inside<D, true, false>)({n, low, size, shape, periods, starts, order, places},
                  points, queries, m, visit, {from, to}, offsets, columns, ways))
}

void find_nearest(Index d, Index n, const double* low, const double* size, const Index* shape, const double* periods,
                  const Index* starts, const Index* order, const double* places, const double* queries, Index m, Index count,
                  double guess, double* ways, double* distances, Index* index) {
    bool around = std::any_of(periods, periods + d, [](double period) { return period > 0; });
    FOR_DIMENSION((around ? nearest<D, true> : nearest<D, false>)({n, low, size, shape, periods, starts, order, places}, queries,
                  m, count, guess, ways, distances, index))
}
}

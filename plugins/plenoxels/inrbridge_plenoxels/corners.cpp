// Which rows of a table over a lattice surround points, and with which weights; `Lattice.find` is the slow twin.
//
//   place = u N - 1/2, kept in [0, N - 1],   low = floor(place), at most N - 2     along each axis of N lattice points
//   weight = prod of 1 - t at low and t at low + 1,   t = place - low
//
// points (n, d), or (b, n, d) where each field has its own; rows and weights (b, n, 2^d), the end along the last axis fastest.
// Where links are given, field i keeps its cell q in row links[i * links_step + q], or not at all where that is negative: then
// the weight is 0. Every number is rounded where the slow twin rounds it.

// a product must not lose its rounding in a fused multiply-add
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

using Index = std::int64_t;

constexpr Index RUN = 64;  // points whose links are on their way together

struct Sizes {
    Index b, n, shared, links_step;
};

// The corners around one point.
template <int d, class T>
inline void find_cell(const Index* counts, const T* u, std::int32_t* rows, T* weights) {
    constexpr int all = 1 << d;
    std::int32_t row[all] = {0};
    T weight[all] = {1};
#pragma GCC unroll 4
    for (int a = 0; a < d; ++a) {
        const T most = T(counts[a] - 1), below_most = T(std::max<Index>(counts[a] - 2, 0));
        T place = u[a] * T(counts[a]) - T(0.5);
        place = place < 0 ? 0 : place > most ? most : place;  // NaN stays, and becomes the first cell
        const T floor = std::floor(place), low = below_most < floor ? below_most : floor, t = place - low;
        std::int32_t ends[2];
        for (int k = 0; k < 2; ++k) ends[k] = std::int32_t(std::clamp<Index>(Index(low + T(k)), 0, counts[a] - 1));
        for (int q = (1 << a) - 1; q >= 0; --q) {  // from behind: what is read is not yet overwritten
            const std::int32_t first = row[q] * std::int32_t(counts[a]);
            const T held = weight[q];
            row[2 * q + 1] = first + ends[1];
            row[2 * q] = first + ends[0];
            weight[2 * q + 1] = held * t;
            weight[2 * q] = held * (1 - t);
        }
    }
    std::memcpy(rows, row, sizeof row);
    std::memcpy(weights, weight, sizeof weight);
}

template <int d, class T>
void find(const Sizes& s, const Index* shape, const T* points, const std::int32_t* links, std::int32_t* rows, T* weights) {
    constexpr Index all = 1 << d;
    const Index runs = (s.n + RUN - 1) / RUN;
    Index counts[d];
    std::copy_n(shape, d, counts);
#pragma omp parallel for schedule(static) if (s.b * s.n > 1024)
    for (Index unit = 0; unit < s.b * runs; ++unit) {
        const Index field = unit / runs, start = unit % runs * RUN, stop = std::min(start + RUN, s.n);
        const T* u = points + (s.shared ? 0 : field * s.n) * d;
        const std::int32_t* kept = links + field * s.links_step;
        for (Index p = start; p < stop; ++p) {
            const Index at = (field * s.n + p) * all;
            find_cell<d>(counts, u + p * d, rows + at, weights + at);
            for (Index q = 0; links && q < all; q += 2) __builtin_prefetch(kept + rows[at + q]);  // two cells lie side by side
        }
        for (Index i = (field * s.n + start) * all; links && i < (field * s.n + stop) * all; ++i) {
            const std::int32_t link = kept[rows[i]];
            rows[i] = std::max(link, 0);
            weights[i] *= T(link >= 0);
        }
    }
}

template <class T>
void find_any(Index d, const Sizes& s, const Index* shape, const T* points, const std::int32_t* links, std::int32_t* rows,
              T* weights) {
    typedef void (*Find)(const Sizes&, const Index*, const T*, const std::int32_t*, std::int32_t*, T*);
    constexpr Find finds[] = {find<1, T>, find<2, T>, find<3, T>, find<4, T>};
    finds[d - 1](s, shape, points, links, rows, weights);
}

}  // namespace

#define SIZES Index d, Index b, Index n, Index shared, Index links_step

extern "C" {
void corners_float(SIZES, const Index* shape, const float* points, const std::int32_t* links, std::int32_t* rows, float* weights) {
    find_any(d, Sizes{b, n, shared, links_step}, shape, points, links, rows, weights);
}
void corners_double(SIZES, const Index* shape, const double* points, const std::int32_t* links, std::int32_t* rows,
                    double* weights) {
    find_any(d, Sizes{b, n, shared, links_step}, shape, points, links, rows, weights);
}
}

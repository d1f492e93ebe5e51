// Floor 1: which samples of a regular grid surround points, and with which weights.
//
// Along an axis of `count` samples place = unit * (count - 1) with `align`, else unit * count - 1/2, where unit is 0 at `low` and 1
// at low + size; the samples at and around place have the weights of linear (2) or cubic (4) interpolation, those beyond the border
// are the border's. points (m, d); rows and weights (m, taps^d), the last axis fastest.

#include <algorithm>
#include <cmath>

#include "gemm.h"

namespace inrbridge {
namespace {

// The box of a grid and what its numbers mean.
struct Grid {
    const Index* shape;
    const double *low, *size;
    bool align;
};

constexpr int power(int base, int exponent) { return exponent ? base * power(base, exponent - 1) : 1; }

template <int taps, class T>
inline void weigh(T t, T* weights) {
    if constexpr (taps == 2) {
        weights[0] = 1 - t;
        weights[1] = t;
    } else {
        weights[0] = t * (t * (1 - t / 2) - T(0.5));
        weights[1] = t * t * (T(1.5) * t - T(2.5)) + 1;
        weights[2] = t * (t * (2 - T(1.5) * t) + T(0.5));
        weights[3] = t * t * (t - 1) / 2;
    }
}

template <int d, int taps, class T>
void find(const T* points, Index m, const Grid& grid, std::int32_t* rows, T* weights) {
    constexpr int all = power(taps, d);
    std::int32_t counts[d];
    T low[d], size[d], steps[d], start = grid.align ? T(0) : T(0.5);
    for (int a = 0; a < d; ++a) {
        counts[a] = std::int32_t(grid.shape[a]);
        low[a] = T(grid.low[a]);
        size[a] = T(grid.size[a]);
        steps[a] = T(grid.shape[a] - grid.align);
    }
#pragma omp parallel for schedule(static) if (m > 1024)
    for (Index p = 0; p < m; ++p) {
        std::int32_t row[all] = {0};
        T weight[all] = {1};
        int held = 1;
#pragma GCC unroll 4
        for (int a = 0; a < d; ++a, held *= taps) {
            T place = (points[p * d + a] - low[a]) / size[a] * steps[a] - start;
            place = place < -1 ? T(-1) : place > counts[a] ? T(counts[a]) : place;  // beyond, all samples are the border's
            const T below = std::floor(place);
            std::int32_t first = (place >= -1 ? std::int32_t(below) : 0) - (taps == 4), near[taps];  // NaN has NaN for weights
            T along[taps];
            weigh<taps>(place - below, along);
            for (int k = 0; k < taps; ++k) near[k] = std::clamp(first + k, 0, counts[a] - 1);
            for (int i = held - 1; i >= 0; --i)  // from behind: what is read is not yet overwritten
                for (int k = taps - 1; k >= 0; --k) {
                    row[i * taps + k] = row[i] * counts[a] + near[k];
                    weight[i * taps + k] = weight[i] * along[k];
                }
        }
        std::memcpy(rows + p * all, row, sizeof row);
        std::memcpy(weights + p * all, weight, sizeof weight);
    }
}

template <class T>
void find_any(const T* points, Index m, Index d, const Grid& grid, Index taps, std::int32_t* rows, T* weights) {
    typedef void (*Find)(const T*, Index, const Grid&, std::int32_t*, T*);
    constexpr Find finds[2][4] = {{find<1, 2, T>, find<2, 2, T>, find<3, 2, T>, find<4, 2, T>},
                                  {find<1, 4, T>, find<2, 4, T>, find<3, 4, T>, find<4, 4, T>}};
    finds[taps == 4][d - 1](points, m, grid, rows, weights);
}

}  // namespace
}  // namespace inrbridge

using inrbridge::Index;

extern "C" {
void corners_float(const float* points, Index m, Index d, const Index* shape, const double* low, const double* size, Index align,
                   Index taps, std::int32_t* rows, float* weights) {
    inrbridge::find_any(points, m, d, inrbridge::Grid{shape, low, size, align != 0}, taps, rows, weights);
}
void corners_double(const double* points, Index m, Index d, const Index* shape, const double* low, const double* size, Index align,
                    Index taps, std::int32_t* rows, double* weights) {
    inrbridge::find_any(points, m, d, inrbridge::Grid{shape, low, size, align != 0}, taps, rows, weights);
}
}

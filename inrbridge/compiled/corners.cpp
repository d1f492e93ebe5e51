// Floor 1: which samples of a regular grid surround points, and with which weights.
//
// Along an axis of `count` samples place = unit * (count - 1) with `align`, else unit * count - 1/2, where unit is 0 at `low` and 1
// at low + size; the samples at and around place have the weights of linear (2) or cubic (4) interpolation, those beyond the border
// are the border's. points (m, d); rows and weights (m, taps^d), the last axis fastest.

#include <cmath>

#include "gemm.h"

namespace inrbridge {
namespace {

constexpr int MOST_AXES = 4;

template <class T>
void weigh(T t, int taps, T* weights) {
    if (taps == 2) {
        weights[0] = 1 - t;
        weights[1] = t;
        return;
    }
    weights[0] = t * (t * (1 - t / 2) - T(0.5));
    weights[1] = t * t * (T(1.5) * t - T(2.5)) + 1;
    weights[2] = t * (t * (2 - T(1.5) * t) + T(0.5));
    weights[3] = t * t * (t - 1) / 2;
}

template <class T>
void corners(const T* points, Index m, Index d, const Index* shape, const double* low, const double* size, bool align, int taps,
             std::int32_t* rows, T* weights) {
    Index all = 1;
    for (Index a = 0; a < d; ++a) all *= taps;
#pragma omp parallel for schedule(static) if (m > 1024)
    for (Index p = 0; p < m; ++p) {
        std::int32_t near[MOST_AXES][4];
        T along[MOST_AXES][4];
        for (Index a = 0; a < d; ++a) {
            T count = T(shape[a]), unit = (points[p * d + a] - T(low[a])) / T(size[a]);
            T place = align ? unit * (count - 1) : unit * count - T(0.5), below = std::floor(place);
            below = below >= -1 ? (below <= count ? below : count) : T(-1);  // also NaN, whose weights are NaN
            weigh(place - below, taps, along[a]);
            Index first = Index(below) - (taps == 4);
            for (int k = 0; k < taps; ++k) {
                Index sample = first + k < 0 ? 0 : first + k;
                near[a][k] = std::int32_t(sample < shape[a] ? sample : shape[a] - 1);
            }
        }
        std::int32_t* row = rows + p * all;
        T* weight = weights + p * all;
        Index held = 1;
        row[0] = 0;
        weight[0] = 1;
        for (Index a = 0; a < d; ++a, held *= taps)
            for (Index i = held - 1; i >= 0; --i)  // from behind: what is read is not yet overwritten
                for (int k = taps - 1; k >= 0; --k) {
                    row[i * taps + k] = row[i] * std::int32_t(shape[a]) + near[a][k];
                    weight[i * taps + k] = weight[i] * along[a][k];
                }
    }
}

}  // namespace
}  // namespace inrbridge

using inrbridge::Index;

extern "C" {
void corners_float(const float* points, Index m, Index d, const Index* shape, const double* low, const double* size, Index align,
                   Index taps, std::int32_t* rows, float* weights) {
    inrbridge::corners(points, m, d, shape, low, size, align != 0, int(taps), rows, weights);
}
void corners_double(const double* points, Index m, Index d, const Index* shape, const double* low, const double* size, Index align,
                    Index taps, std::int32_t* rows, double* weights) {
    inrbridge::corners(points, m, d, shape, low, size, align != 0, int(taps), rows, weights);
}
}

// Floor 1: sines, and sines with cosines, of a row of numbers: y = sin(omega x), c = omega cos(omega x).
//
// omega x is rounded before the sine is taken, as where it is a tensor of its own. Threads take runs of equal length.

#include "sine.h"

namespace inrbridge {

constexpr Index RUN = 1024;  // numbers, which stay in the first cache

template <class T>
void waves(const T* x, T omega, Index count, T* y, T* c) {
    constexpr Index lanes = Vector<T>::lanes;
#pragma omp parallel for schedule(static) if (count > 4 * RUN)
    for (Index start = 0; start < count; start += RUN) {
        T t[RUN], slopes[RUN];
        Index size = count - start < RUN ? count - start : RUN, vectors = round_up(size, lanes) / lanes;
        for (Index i = 0; i < size; ++i) t[i] = omega * x[start + i];
        for (Index i = size; i < vectors * lanes; ++i) t[i] = 0;
        if (c) {
            sines_cosines(t, t, slopes, omega, vectors);
            std::memcpy(c + start, slopes, size * sizeof(T));
        } else {
            sines(t, vectors);
        }
        std::memcpy(y + start, t, size * sizeof(T));
    }
}

}  // namespace inrbridge

using inrbridge::Index;

extern "C" {

void sine_f32(const float* x, double omega, Index count, float* y, float* c) {
    inrbridge::waves<float>(x, float(omega), count, y, c);
}

void sine_f64(const double* x, double omega, Index count, double* y, double* c) {
    inrbridge::waves<double>(x, omega, count, y, c);
}
}

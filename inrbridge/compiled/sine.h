// Floor 1: sines and cosines of whole vectors, in float and double.
//
// The argument is reduced by Cody and Waite: q = the nearest multiple, r = t - q A - q B - q C with pi (or pi / 2) = A + B + C, by
// fused multiply-adds, of which the first is exact; then a polynomial of least relative error. Up to FARTHEST the results are
// within 1.5 units in the last place where |sin t| is not small, and within 1e-7 (float) or 2e-16 (double) everywhere; vectors
// with larger arguments, infinities among them, are left to the C library. NaN gives NaN.
#pragma once

#include <cmath>

#include "gemm.h"

namespace inrbridge {

template <class T>
struct Wave;

template <>
struct Wave<float> {
    typedef std::int32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr float FARTHEST = 1e5f;
    static constexpr float ROUNDER = 0x1.8p23f;  // added, it leaves a whole number in the lowest bits
    static constexpr float PI[3] = {0x1.921fb6p+1f, -0x1.777a5cp-24f, -0x1.ee59dap-49f};
    static constexpr int SIGN = 31;
    // (sin r / r - 1) / r^2 in powers of r^2, for |r| <= pi / 4; (cos r - 1 + r^2 / 2) / r^4; and the sine for |r| <= pi / 2
    static constexpr float SINE[] = {-1.66666538637e-1f, 8.332113046e-3f, -1.95087419e-4f};
    static constexpr float COSINE[] = {4.166664436757e-2f, -1.388725147669e-3f, 2.442568077436e-5f};
    static constexpr float WIDE_SINE[] = {-1.666665894480e-1f, 8.333049519155e-3f, -1.980830555738e-4f, 2.602776335885e-6f};
};

template <>
struct Wave<double> {
    typedef std::int64_t Bits __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr double FARTHEST = 1e9;
    static constexpr double ROUNDER = 0x1.8p52;
    static constexpr double PI[3] = {0x1.921fb54442d18p+1, 0x1.1a62633145c07p-53, -0x1.f1976b8p-109};
    static constexpr int SIGN = 63;
    static constexpr double SINE[] = {-1.66666666666666324348e-1, 8.33333333332248946124e-3, -1.98412698298579493134e-4,
                                      2.75573137070700676789e-6,  -2.50507602534068634195e-8, 1.58969099521155010221e-10};
    static constexpr double COSINE[] = {4.16666666666666019037e-2, -1.38888888888741095749e-3, 2.48015872894767294178e-5,
                                        -2.75573143513906633035e-7, 2.08757232129817482790e-9, -1.13596475577881948265e-11};
};

template <class T, std::size_t terms>
inline Numbers<T> polynomial(const T (&coefficients)[terms], Numbers<T> x) {
    Numbers<T> sum = x * coefficients[terms - 1] + coefficients[terms - 2];
#pragma GCC unroll 8
    for (int i = int(terms) - 3; i >= 0; --i) sum = sum * x + coefficients[i];
    return sum;
}

// t minus the nearest multiple of pi * share, and in `turns` that multiple, in the lowest bits.
template <class T>
inline Numbers<T> reduce(Numbers<T> t, T share, typename Wave<T>::Bits& turns) {
    typedef Wave<T> W;
    Numbers<T> shifted = t * T(0.31830988618379067154 / share) + W::ROUNDER;
    std::memcpy(&turns, &shifted, sizeof turns);
    Numbers<T> whole = shifted - W::ROUNDER;
    t = t - whole * (W::PI[0] * share);
    t = t - whole * (W::PI[1] * share);
    return t - whole * (W::PI[2] * share);
}

template <class T>
inline Numbers<T> flip(Numbers<T> value, typename Wave<T>::Bits odd) {  // the sign, where the lowest bit is set
    typename Wave<T>::Bits bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits ^= odd << Wave<T>::SIGN;
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

template <class T>
inline Numbers<T> choose(typename Wave<T>::Bits mask, Numbers<T> yes, Numbers<T> no) {
    typename Wave<T>::Bits a, b;
    std::memcpy(&a, &yes, sizeof a);
    std::memcpy(&b, &no, sizeof b);
    a = (a & mask) | (b & ~mask);
    std::memcpy(&yes, &a, sizeof a);
    return yes;
}

// The sine and the cosine of |t| <= FARTHEST.
template <class T>
inline void sine_cosine(Numbers<T> t, Numbers<T>& sine, Numbers<T>& cosine) {
    typename Wave<T>::Bits turns;
    Numbers<T> r = reduce<T>(t, T(0.5), turns), square = r * r;
    Numbers<T> s = r + r * square * polynomial<T>(Wave<T>::SINE, square);
    Numbers<T> c = (T(1) - T(0.5) * square) + square * square * polynomial<T>(Wave<T>::COSINE, square);
    typename Wave<T>::Bits swapped = -(turns & 1);
    sine = flip<T>(choose<T>(swapped, c, s), turns >> 1);
    cosine = flip<T>(choose<T>(swapped, s, c), (turns + 1) >> 1);
}

inline Numbers<float> sine(Numbers<float> t) {
    Wave<float>::Bits turns;
    Numbers<float> r = reduce<float>(t, 1.0f, turns), square = r * r;
    return flip<float>(r + r * square * polynomial<float>(Wave<float>::WIDE_SINE, square), turns);
}

inline Numbers<double> sine(Numbers<double> t) {
    Numbers<double> s, c;
    sine_cosine<double>(t, s, c);
    return s;
}

// Say whether an argument of a row of `count` vectors is too large.
template <class T>
inline bool reaches_far(const T* t, Index count) {
    typename Wave<T>::Bits far = {};
    for (Index i = 0; i < count; ++i) {
        Numbers<T> value = load(t + i * Vector<T>::lanes);
        far |= (value > Wave<T>::FARTHEST) | (value < -Wave<T>::FARTHEST);
    }
    for (Index lane = 0; lane < Vector<T>::lanes; ++lane)
        if (far[lane]) return true;
    return false;
}

// t becomes its sine, for `count` vectors.
template <class T>
inline void sines(T* t, Index count) {
    constexpr Index lanes = Vector<T>::lanes;
    if (reaches_far(t, count)) {
        for (Index i = 0; i < count * lanes; ++i) t[i] = std::sin(t[i]);
        return;
    }
    for (Index i = 0; i < count; ++i) store(t + i * lanes, sine(load(t + i * lanes)));
}

// The sines of t, and factor times the cosines, for `count` vectors; t itself may become either.
template <class T>
inline void sines_cosines(const T* t, T* to_sine, T* to_cosine, T factor, Index count) {
    constexpr Index lanes = Vector<T>::lanes;
    if (reaches_far(t, count)) {
        for (Index i = 0; i < count * lanes; ++i) {
            T value = t[i];
            to_sine[i] = std::sin(value), to_cosine[i] = factor * std::cos(value);
        }
        return;
    }
    for (Index i = 0; i < count; ++i) {
        Numbers<T> s, c;
        sine_cosine<T>(load(t + i * lanes), s, c);
        store(to_sine + i * lanes, s);
        store(to_cosine + i * lanes, factor * c);
    }
}

// Cosines of the first `half` numbers t and sines of the others, and their slopes unless that is null, for `count` vectors.
template <class T>
inline void waves(const T* t, T* to_wave, T* to_slope, Index half, Index count) {
    constexpr Index lanes = Vector<T>::lanes;
    if (reaches_far(t, count)) {
        for (Index i = 0; i < count * lanes; ++i) {
            T s = std::sin(t[i]), c = std::cos(t[i]);
            to_wave[i] = i < half ? c : s;
            if (to_slope) to_slope[i] = i < half ? -s : c;
        }
        return;
    }
    typename Wave<T>::Bits left;  // how far each lane is from the half
    for (Index lane = 0; lane < lanes; ++lane) left[lane] = half - lane;
    for (Index i = 0; i < count; ++i, left -= lanes) {
        Numbers<T> s, c;
        sine_cosine<T>(load(t + i * lanes), s, c);
        typename Wave<T>::Bits first = left > 0;
        store(to_wave + i * lanes, choose<T>(first, c, s));
        if (to_slope) store(to_slope + i * lanes, choose<T>(first, -s, c));
    }
}

}  // namespace inrbridge

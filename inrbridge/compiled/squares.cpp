// Moving least squares: weights that evaluate a sampled function at a query, exactly for polynomials.
//
// A query sees `count` samples, the ways to them (d numbers each) and their lengths in ascending order. Several queries stand side
// by side in the lanes of a vector, so that nothing is summed across lanes and a query's weights do not depend on its company.
// The formulas are those of the plain twin, `_fit` in inrbridge/stencils/reconstruct.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

using Index = int64_t;

#if defined(__AVX512F__)
constexpr int width = 8;
#elif defined(__AVX__)
constexpr int width = 4;
#else
constexpr int width = 2;
#endif
typedef double Lanes __attribute__((vector_size(width * sizeof(double))));

Lanes all(double x) { return x - Lanes{}; }

Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

Lanes magnitude(Lanes a) { return a < 0.0 ? -a : a; }

Lanes root(Lanes a) {
    for (int l = 0; l < width; ++l) a[l] = std::sqrt(a[l]);
    return a;
}

// The monomials of a fit, the constant first: each other one is an earlier one times a coordinate.
struct Monomials {
    std::vector<Index> before, axis;

    Monomials(const Index* powers, Index terms, Index d) : before(terms), axis(terms) {
        for (Index t = 1; t < terms; ++t) {
            Index a = 0;
            while (powers[t * d + a] == 0) ++a;
            axis[t] = a;
            for (Index s = 0; s < t; ++s) {
                bool found = true;
                for (Index c = 0; c < d; ++c) found &= powers[s * d + c] == powers[t * d + c] - (c == a);
                if (found) before[t] = s;
            }
        }
    }
};

struct Fit {
    Index d, count, terms;
    const Monomials& monomials;
    std::vector<Lanes> way, theta, vander, gram, scale, solution, weight;
    Lanes exact;

    Fit(Index d, Index count, Index terms, const Monomials& monomials)
        : d(d), count(count), terms(terms), monomials(monomials), way(d * count), theta(count), vander(terms * count),
          gram(terms * terms), scale(terms), solution(terms), weight(count) {}

    // Takes the samples of up to `width` queries; lanes without one repeat the last.
    void take(const double* ways, const double* distances, Index queries, double widen) {
        for (int l = 0; l < width; ++l) {
            Index q = std::min<Index>(l, queries - 1);
            double radius = (distances[q * count + count - 1] * (1.0 + 1e-9) + 1e-300) * widen;
            for (Index s = 0; s < count; ++s) {
                double rho = distances[q * count + s] / radius, square = rho * rho;
                double rest = std::max(1.0 - square, 0.0);
                theta[s][l] = rest * rest / std::max(square, 1e-12);
                if (s == 0) exact[l] = square < 1e-12 ? 1.0 : 0.0;
                for (Index a = 0; a < d; ++a) way[a * count + s][l] = ways[(q * count + s) * d + a] / radius;
            }
        }
    }

    void solve() {
        for (Index s = 0; s < count; ++s) vander[s] = all(1.0);
        for (Index t = 1; t < terms; ++t)
            for (Index s = 0; s < count; ++s)
                vander[t * count + s] = vander[monomials.before[t] * count + s] * way[monomials.axis[t] * count + s];
        for (Index a = 0; a < terms; ++a) {
            for (Index s = 0; s < count; ++s) weight[s] = theta[s] * vander[a * count + s];
            for (Index b = 0; b <= a; ++b) {
                Lanes sum = all(0.0);
                for (Index s = 0; s < count; ++s) sum += weight[s] * vander[b * count + s];
                gram[a * terms + b] = sum;
            }
        }
        for (Index a = 0; a < terms; ++a) scale[a] = root(larger(gram[a * terms + a], all(1e-300)));
        for (Index a = 0; a < terms; ++a) {  // Cholesky, of the equilibrated matrix
            for (Index b = 0; b <= a; ++b) {
                Lanes sum = gram[a * terms + b] / (scale[a] * scale[b]);
                if (a == b) sum += 1e-13;
                for (Index c = 0; c < b; ++c) sum -= gram[a * terms + c] * gram[b * terms + c];
                gram[a * terms + b] = a == b ? root(sum) : sum / gram[b * terms + b];
            }
        }
        for (Index a = 0; a < terms; ++a) {
            Lanes sum = a == 0 ? 1.0 / scale[0] : all(0.0);
            for (Index c = 0; c < a; ++c) sum -= gram[a * terms + c] * solution[c];
            solution[a] = sum / gram[a * terms + a];
        }
        for (Index a = terms - 1; a >= 0; --a) {
            Lanes sum = solution[a];
            for (Index c = a + 1; c < terms; ++c) sum -= gram[c * terms + a] * solution[c];
            solution[a] = sum / gram[a * terms + a];
        }
        for (Index a = 0; a < terms; ++a) solution[a] /= scale[a];
        for (Index s = 0; s < count; ++s) {
            Lanes sum = all(0.0);
            for (Index t = 0; t < terms; ++t) sum += vander[t * count + s] * solution[t];
            weight[s] = theta[s] * sum;
        }
    }

    // Writes the weights of each query and the sum of their sizes, infinite where polynomials are not reproduced.
    void write(double* weights, double* sizes, Index queries) {
        Lanes size = all(0.0);
        auto met = size < 1e-6;
        for (Index t = 0; t < terms; ++t) {
            Lanes sum = all(t == 0 ? -1.0 : 0.0);
            for (Index s = 0; s < count; ++s) sum += weight[s] * vander[t * count + s];
            met &= magnitude(sum) < 1e-6;
        }
        for (Index s = 0; s < count; ++s) size += magnitude(weight[s]);
        for (Index l = 0; l < queries; ++l) {
            bool on = exact[l] != 0;
            sizes[l] = on ? 1.0 : met[l] ? size[l] : std::numeric_limits<double>::infinity();
            for (Index s = 0; s < count; ++s) weights[l * count + s] = on ? (s == 0) : weight[s][l];
        }
    }
};

}  // namespace

extern "C" {

// Ways (m, count, d), distances (m, count) and powers (terms, d) -> weights (m, count) and sizes (m).
void fit_squares(Index m, Index count, Index d, const double* ways, const double* distances, double widen, const Index* powers,
                 Index terms, double* weights, double* sizes) {
    Monomials monomials(powers, terms, d);
#pragma omp parallel
    {
        Fit fit(d, count, terms, monomials);
#pragma omp for schedule(static)
        for (Index q = 0; q < m; q += width) {
            Index queries = std::min<Index>(width, m - q);
            fit.take(ways + q * count * d, distances + q * count, queries, widen);
            fit.solve();
            fit.write(weights + q * count, sizes + q, queries);
        }
    }
}

// How many weights (m, count) of each row are not 0.
void count_used(Index m, Index count, const double* weights, Index* counts) {
    for (Index q = 0; q < m; ++q)
        counts[q] = count - std::count(weights + q * count, weights + (q + 1) * count, 0.0);
}

// Writes the entries (m, count) whose weight is not 0 behind one another, those of row q from starts[q] on.
void place_used(Index m, Index count, const Index* index, const double* weights, const Index* starts, Index* columns,
                double* values) {
    for (Index q = 0; q < m; ++q) {
        Index place = starts[q];
        for (Index s = q * count; s < (q + 1) * count; ++s)
            if (weights[s] != 0.0) {
                columns[place] = index[s];
                values[place++] = weights[s];
            }
    }
}
}

// From pairs of points to the entries of a stencil: basis functions, bins, and the order by rows.
//
// The pairs of output i stand at offsets[i] to offsets[i + 1]: `index` (p) names the input point, `ways` (p, d) lead there.
// Entries are by rows, row i * k + node, so that those of output i begin at k * offsets[i], one node after the other.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

using Index = int64_t;

extern "C" {

// columns and values (k * p): weights[j] times node k's basis function, a product of piecewise polynomials along the axes.
// The pieces of axis a are width[a] wide from start[a] on; table[a] (pieces[a], degree + 1, most) has the coefficients, highest
// power first, in the distance from the beginning of the piece as a part of its width. picks (k, d) says which function of each
// axis a node multiplies.
void multiply_pieces(Index m, Index d, Index k, const Index* offsets, const Index* index, const double* ways,
                     const double* weights, const double* start, const double* width, const Index* pieces, Index degree,
                     Index most, const double* tables, Index stride, const Index* picks, Index* columns, double* values) {
#pragma omp parallel
    {
        std::vector<double> room;
#pragma omp for schedule(static)
        for (Index i = 0; i < m; ++i) {
            Index first = offsets[i], held = offsets[i + 1] - first;
            room.resize(std::max<Index>(room.size(), (d * most + 1) * held));
            double* weight = room.data();  // of each pair, then the functions of each axis at each pair
            for (Index t = 0; t < held; ++t) weight[t] = weights[index[first + t]];
            for (Index a = 0; a < d; ++a) {
                double* functions = weight + (1 + a * most) * held;
                for (Index t = 0; t < held; ++t) {
                    double at = (ways[(first + t) * d + a] - start[a]) / width[a];
                    double piece = std::clamp(std::floor(at), 0.0, static_cast<double>(pieces[a] - 1));
                    const double* table = tables + a * stride + static_cast<Index>(piece) * (degree + 1) * most;
                    at -= piece;
                    for (Index f = 0; f < most; ++f) {
                        double sum = table[f];
                        for (Index power = 1; power <= degree; ++power) sum = sum * at + table[power * most + f];
                        functions[f * held + t] = sum;
                    }
                }
            }
            for (Index node = 0; node < k; ++node) {
                double* out = values + k * first + node * held;
                std::copy(index + first, index + first + held, columns + k * first + node * held);
                std::copy(weight, weight + held, out);
                for (Index a = 0; a < d; ++a) {
                    const double* function = weight + (1 + a * most + picks[node * d + a]) * held;
                    for (Index t = 0; t < held; ++t) out[t] *= function[t];
                }
            }
        }
    }
}

// The seed (seeds, d) nearest to each way (p, d), the lower one of two equally near.
void nearest_seed(Index p, Index d, const double* ways, Index count, const double* seeds, Index* nearest) {
#pragma omp parallel
    {
        std::vector<double> squares(count);
#pragma omp for schedule(static)
        for (Index i = 0; i < p; ++i) {
            std::fill(squares.begin(), squares.end(), 0.0);
            double* square = squares.data();
            for (Index a = 0; a < d; ++a) {  // seeds lie axis by axis here
                double x = ways[i * d + a];
                const double* axis = seeds + a * count;
                for (Index s = 0; s < count; ++s) square[s] += (axis[s] - x) * (axis[s] - x);
            }
            double least = std::numeric_limits<double>::infinity();
            for (Index s = 0; s < count; ++s) least = std::min(least, square[s]);
            nearest[i] = std::find(square, square + count, least) - square;
        }
    }
}

// Sorts entries (e) by key, those of one key staying in order: offsets (count + 1), and which entry comes when (e).
void order_by_key(Index e, Index count, const Index* keys, Index* offsets, Index* order) {
    std::fill(offsets, offsets + count + 1, 0);
    for (Index i = 0; i < e; ++i) ++offsets[keys[i] + 1];
    for (Index c = 0; c < count; ++c) offsets[c + 1] += offsets[c];
    std::vector<Index> next(offsets, offsets + count);
    for (Index i = 0; i < e; ++i) order[next[keys[i]]++] = i;
}

// Writes t columns and t * w values from each of m starts on: the points `steps` further than number natural[i] in natural order,
// which closes after n, and the same values everywhere.
void shift_rows(Index m, const Index* starts, const Index* natural, Index t, const Index* steps, Index n, const Index* point,
                Index w, const double* values, Index* columns, double* out) {
#pragma omp parallel for schedule(static)
    for (Index i = 0; i < m; ++i) {
        for (Index s = 0; s < t; ++s) {
            Index number = natural[i] + steps[s];
            number += number < 0 ? n : 0;
            number -= number >= n ? n : 0;
            columns[starts[i] + s] = point[number];
        }
        std::copy(values, values + t * w, out + starts[i] * w);
    }
}

// A stencil by rows i * nodes + node, with inputs and outputs exchanged: entries of column j go to row j * nodes + node, column i,
// in ascending order. `columns` of the stencil are below n; `edges_out` (n * nodes + 1).
void exchange(Index m, Index nodes, Index n, const Index* edges, const Index* columns, const double* weights, Index* edges_out,
              Index* columns_out, double* weights_out) {
    std::vector<Index> next(n * nodes + 1, 0);
    for (Index row = 0, node = 0; row < m * nodes; ++row, node = node + 1 == nodes ? 0 : node + 1)
        for (Index e = edges[row]; e < edges[row + 1]; ++e) ++next[columns[e] * nodes + node + 1];
    for (Index r = 0; r < n * nodes; ++r) next[r + 1] += next[r];
    std::copy(next.begin(), next.end(), edges_out);
    for (Index i = 0; i < m; ++i)
        for (Index node = 0; node < nodes; ++node)
            for (Index e = edges[i * nodes + node]; e < edges[i * nodes + node + 1]; ++e) {
                Index place = next[columns[e] * nodes + node]++;
                columns_out[place] = i;
                weights_out[place] = weights[e];
            }
}
}

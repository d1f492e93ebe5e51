// Floor 1: the local operator where each pair has a mixture of kernels of its own: out[i] = sum over pairs of i, and over h,
// of w phi[node][h] f[j] W[h], and its gradients.
//
// Values lie points first, (n, b, c). A block of output points and of fields sums its neighbours into Z[h][row][channel], with
// one row for each point and field, while they are in cache, and multiplies Z by the kernel. The gradients take one such sum
// of the cotangent, Y, over the pairs turned round:
//
//   values: sum_h Y[h] W[h]^T        kernel: W'[h] = f^T Y[h]        features: phi'[pair][h] = <f W[h], cotangent>
//
// Every number is summed in one order, whatever the number of threads.

#include "scatter.h"

using namespace inrbridge;

namespace {

constexpr Index SPAN = 128;            // numbers of a source's row that are summed together
constexpr Index SUM_BYTES = 160 << 10; // of a block's sums: they share the second cache with the kernel
constexpr Index PARTS = 16;            // sums of the kernel's gradient that are added up at the end

// The pairs of point i are bounds[i] to bounds[i + 1]; points are worked on in an order in which near ones follow one another.
template <class T>
struct Pairs {
    Index points, h, b;
    const std::int64_t *order, *bounds, *column, *node;
    const T *weight, *features;
};

// Rows of neighbours, each times `height` coefficients, summed: a column of coefficients times a listed row.
template <class T>
struct Weighted {
    const T* coefficients;  // (count, height)
    const T* const* listed;
    Index count, height;

    template <int rows, int vectors>
    void add_to(Numbers<T> (&sum)[rows][vectors], Index row, Index column) const {
        const T* left = coefficients + row;
        for (Index t = 0; t < count; ++t, left += height) add_outer(sum, left, 1, listed[t] + column);
    }
};

// Points [first, first + points) of the order, fields [field, field + fields).
struct Part {
    Index first, points, field, fields;
};

// The room that one thread needs, and the sums of a block of points.
template <class T>
class Worker {
  public:
    Worker(const Pairs<T>& pairs, Index channels, Index out_channels)
        : pairs_(pairs), channels_(channels), fields_(std::clamp<Index>(SPAN / channels, 1, pairs.b)),
          block_(std::clamp<Index>(SUM_BYTES / (pairs.h * fields_ * channels * Index(sizeof(T))), 1, 64)),
          sums_(pairs.h * block_ * fields_ * channels + Block<T>::columns), result_(block_ * fields_ * out_channels),
          left_(pairs.h) {}

    Index blocks() const { return (pairs_.points + block_ - 1) / block_; }

    // Goes through the blocks of fields of a block of points, and hands each part with its sums to `use`.
    template <class Use>
    void run(Index index, const T* source, Use use) {
        Part part{index * block_, std::min(block_, pairs_.points - index * block_), 0, 0};
        weigh(part);
        for (; part.field < pairs_.b; part.field += part.fields) {
            part.fields = std::min(fields_, pairs_.b - part.field);
            sum(part, source);
            use(part);
        }
    }

    Index point(const Part& part, Index p) const { return pairs_.order[part.first + p]; }
    T* sums() { return sums_.data(); }
    T* result() { return result_.data(); }

    // result[row] = sum_h Z[h][row] B[h] with packed matrices B, `size` numbers each.
    void mix(const Part& part, const T* const* packed, Index columns) {
        Index rows = part.points * part.fields;
        for (Index h = 0; h < pairs_.h; ++h) left_[h] = sums_.data() + h * rows * channels_;
        multiply(Factors<T>{left_.data(), packed, pairs_.h, channels_, channels_}, rows, columns, result_.data(), columns, false);
    }

    // Copies between the rows of a part and the points of a tensor (points, b, width).
    void put(const Part& part, Index width, const T* rows, T* to) const {
        for (Index p = 0; p < part.points; ++p)
            std::memcpy(to + (point(part, p) * pairs_.b + part.field) * width, rows + p * part.fields * width,
                        part.fields * width * sizeof(T));
    }
    void take(const Part& part, Index width, const T* from, T* rows) const {
        for (Index p = 0; p < part.points; ++p)
            std::memcpy(rows + p * part.fields * width, from + (point(part, p) * pairs_.b + part.field) * width,
                        part.fields * width * sizeof(T));
    }

    // The rows of the neighbours of a point, those of the fields of a part.
    const T* const* listed(const Part& part, Index i, const T* source, Index width) {
        Index start = pairs_.bounds[i], count = pairs_.bounds[i + 1] - start;
        if (Index(listed_.size()) < count) listed_.resize(count);
        for (Index t = 0; t < count; ++t)
            listed_[t] = source + (pairs_.column[start + t] * pairs_.b + part.field) * width;
        return listed_.data();
    }

  private:
    // The coefficients w phi[node][h] of the pairs of a block of points.
    void weigh(const Part& part) {
        Index total = 0;
        for (Index p = 0; p < part.points; ++p) total += pairs_.bounds[point(part, p) + 1] - pairs_.bounds[point(part, p)];
        coefficients_.resize(total * pairs_.h);
        T* to = coefficients_.data();
        for (Index p = 0; p < part.points; ++p)
            for (Index e = pairs_.bounds[point(part, p)]; e < pairs_.bounds[point(part, p) + 1]; ++e) {
                const T* features = pairs_.features + pairs_.node[e] * pairs_.h;
                for (Index h = 0; h < pairs_.h; ++h) *to++ = pairs_.weight[e] * features[h];
            }
    }

    // Z[h][row][channel] of a part.
    void sum(const Part& part, const T* source) {
        const Index length = part.fields * channels_, whole = length / Vector<T>::lanes * Vector<T>::lanes;
        const Index step = part.points * length;
        const T* coefficients = coefficients_.data();
        for (Index p = 0; p < part.points; ++p) {
            Index i = point(part, p), count = pairs_.bounds[i + 1] - pairs_.bounds[i];
            const T* const* rows = listed(part, i, source, channels_);
            T* to = sums_.data() + p * length;
            compute<T>(Weighted<T>{coefficients, rows, count, pairs_.h}, pairs_.h, whole, to, step, false);
            for (Index h = 0; h < pairs_.h && whole < length; ++h)
                for (Index x = whole; x < length; ++x) {
                    T total = 0;
                    for (Index t = 0; t < count; ++t) total += coefficients[t * pairs_.h + h] * rows[t][x];
                    to[h * step + x] = total;
                }
            coefficients += count * pairs_.h;
        }
    }

    const Pairs<T>& pairs_;
    Index channels_, fields_, block_;
    Buffer<T> sums_, result_;
    std::vector<const T*> left_, listed_;
    std::vector<T> coefficients_;
};

// Matrices (h, c, o), packed one after the other; `turned`: their transposes.
template <class T>
class Packed {
  public:
    Packed(const T* kernel, Index h, Index c, Index o, bool turned) : data_(h * size(turned ? o : c, turned ? c : o)), list_(h) {
        const Index depth = turned ? o : c, columns = turned ? c : o;
        for (Index k = 0; k < h; ++k) {
            T* to = data_.data() + k * size(depth, columns);
            pack<T>(kernel + k * c * o, depth, columns, turned ? 1 : o, turned ? o : 1, to);
            list_[k] = to;
        }
    }
    const T* const* list() const { return list_.data(); }

  private:
    static Index size(Index depth, Index columns) { return round_up(packed_size<T>(depth, columns), Vector<T>::lanes); }
    Buffer<T> data_;
    std::vector<const T*> list_;
};

// out (m, b, o) of values (n, b, c) and kernel (h, c, o).
template <class T>
void forward(const Pairs<T>& pairs, Index c, Index o, const T* values, const T* kernel, T* out) {
    const Packed<T> packed(kernel, pairs.h, c, o, false);
#pragma omp parallel
    {
        Worker<T> worker(pairs, c, o);
#pragma omp for schedule(dynamic)
        for (Index block = 0; block < worker.blocks(); ++block)
            worker.run(block, values, [&](const Part& part) {
                worker.mix(part, packed.list(), o);
                worker.put(part, o, worker.result(), out);
            });
    }
}

// The gradients that are asked for (not null), of pairs turned round: values' (n, b, c), features' of each pair (p, h), kernel's
// (h, c, o). `spread` is the kernel as (c, o, h).
template <class T>
void backward(const Pairs<T>& pairs, Index c, Index o, const T* values, const T* kernel, const T* spread, const T* cotangent,
              T* to_values, T* to_features, T* to_kernel) {
    const Index h = pairs.h;
    const Packed<T> packed(kernel, h, c, o, true), wide(spread, 1, c, o * h, false);
    const Index numbers = to_kernel ? h * c * o : 0;
    std::vector<T> partial(PARTS * numbers);
#pragma omp parallel
    {
        Worker<T> worker(pairs, o, std::max(c, o));
        std::vector<T> rows;
#pragma omp for schedule(dynamic)
        for (Index part_number = 0; part_number < PARTS; ++part_number) {
            T* total = partial.data() + part_number * numbers;
            const Index first = worker.blocks() * part_number / PARTS, last = worker.blocks() * (part_number + 1) / PARTS;
            for (Index block = first; block < last; ++block)
                worker.run(block, cotangent, [&](const Part& part) {
                    const Index count = part.points * part.fields;
                    if (to_values) {
                        worker.mix(part, packed.list(), c);
                        worker.put(part, c, worker.result(), to_values);
                    }
                    if (!to_kernel && !to_features) return;
                    rows.resize(count * c);
                    worker.take(part, c, values, rows.data());
                    for (Index k = 0; k < h && to_kernel; ++k)
                        outer(rows.data(), c, worker.sums() + k * count * o, o, count, c, o, total + k * c * o, o);
                    if (!to_features) return;
                    const T* left = rows.data();  // f W[h] takes the place of the sums: (row, o, h)
                    multiply(Factors<T>{&left, wide.list(), 1, c, c}, count, o * h, worker.sums(), o * h, false);
                    for (Index p = 0; p < part.points; ++p) {
                        const Index i = worker.point(part, p), start = pairs.bounds[i];
                        Matched<T> matched{worker.listed(part, i, cotangent, o), worker.sums() + p * part.fields * o * h,
                                           part.fields * o, h};
                        compute<T>(matched, pairs.bounds[i + 1] - start, h, to_features + start * h, h, part.field > 0);
                    }
                });
        }
#pragma omp for schedule(static)
        for (Index x = 0; x < numbers; ++x) {
            T sum = 0;
            for (Index part_number = 0; part_number < PARTS; ++part_number) sum += partial[part_number * numbers + x];
            to_kernel[x] = sum;
        }
    }
}

}  // namespace

#define EXPORT(T, name)                                                                                                         \
    extern "C" void pairs_forward_##name(Index points, Index h, Index b, Index c, Index o, const std::int64_t* order,           \
                                         const std::int64_t* bounds, const std::int64_t* column, const std::int64_t* node,      \
                                         const T* weight, const T* features, const T* values, const T* kernel, T* out) {        \
        forward<T>({points, h, b, order, bounds, column, node, weight, features}, c, o, values, kernel, out);                   \
    }                                                                                                                           \
    extern "C" void pairs_backward_##name(Index points, Index h, Index b, Index c, Index o, const std::int64_t* order,          \
                                          const std::int64_t* bounds, const std::int64_t* column, const std::int64_t* node,     \
                                          const T* weight, const T* features, const T* values, const T* kernel,                 \
                                          const T* spread, const T* cotangent, T* to_values, T* to_features, T* to_kernel) {    \
        backward<T>({points, h, b, order, bounds, column, node, weight, features}, c, o, values, kernel, spread, cotangent,     \
                    to_values, to_features, to_kernel);                                                                         \
    }

EXPORT(float, float32)
EXPORT(double, float64)

// Floor 1: many small networks at once: a row of layers z = W y + b, y = z, sin(omega z), max(z, 0), or the cosines of the first
// half of z and the sines of the second (waves), and their gradients.
//
// Layouts: points (fields, points, width) or (points, width) shared by all, weights (fields, out, in), biases (fields, out). A
// thread takes one field and a run of its points, and leads a block of points through all layers while it stays in the second
// cache; only what the gradient needs is kept of them: the argument of a sine, whose sine and cosine are taken again, or y.
// Runs do not depend on the number of threads, and their sums are added in order: results do not depend on it either.

#include <cstdlib>
#include <memory>
#include <vector>

#include "sine.h"

namespace inrbridge {

constexpr Index BLOCK = 24 << 10, BLOCK_BACK = 48 << 10;  // numbers of the widest layer in one block of points
constexpr Index RUNS = 16;                 // of points and fields, that threads share, at least
constexpr Index SHORTEST_RUN = 256;        // points

enum Kind : Index { IDENTITY = 0, SINE = 1, RELU = 2, WAVES = 3 };

template <class T>
struct Layers {
    Index count;
    const Index* widths;  // count + 1
    const Index* kinds;
    const double* omegas;
    const T* const* weights;
    const T* const* biases;  // null: none
    T* const* kept;          // (fields, points, out) of each layer, or null

    Index in(Index layer) const { return widths[layer]; }
    Index out(Index layer) const { return widths[layer + 1]; }
    Index widest() const {
        Index most = 0;
        for (Index i = 0; i <= count; ++i) most = widths[i] > most ? widths[i] : most;
        return most;
    }
};

// Zeroed memory on the boundaries of vectors.
template <class T>
class Buffer {
    std::unique_ptr<T, void (*)(void*)> place{nullptr, std::free};

  public:
    explicit Buffer(Index count) {
        std::size_t bytes = round_up(count * sizeof(T) + 64, 64);
        place.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
        std::memset(place.get(), 0, bytes);
    }
    operator T*() const { return place.get(); }
};

// Rows of a block lie in whole vectors, and one further: the strides of wide layers would meet in few sets of the cache.
template <class T>
Index stride(Index width) {
    return round_up(width, Vector<T>::lanes) + Vector<T>::lanes;
}

inline Index run_count(Index fields, Index points) {
    Index wanted = (RUNS + fields - 1) / fields, most = points / SHORTEST_RUN;
    return wanted < most ? wanted : (most > 1 ? most : 1);
}

inline Index block_size(Index widest, Index points, Index numbers) {
    Index most = round_up(numbers / widest + 1, 12);
    Index count = (points + most - 1) / most;
    return count > 0 ? (points + count - 1) / count : 1;
}

// Numbers of all packed weights; with `back` those of W^T, else of W.
template <class T>
Index packed_weights(const Layers<T>& net, bool back) {
    Index sum = 0;
    for (Index i = 0; i < net.count; ++i)
        sum += back ? packed_size<T>(net.out(i), net.in(i)) : packed_size<T>(net.in(i), net.out(i));
    return sum;
}

template <class T>
void pack_weights(const Layers<T>& net, Index field, bool back, T* to) {
    for (Index i = 0; i < net.count; ++i) {
        Index in = net.in(i), out = net.out(i);
        const T* weight = net.weights[i] + field * out * in;
        if (back)
            pack(weight, out, in, in, Index(1), to);
        else
            pack(weight, in, out, Index(1), in, to);
        to += back ? packed_size<T>(out, in) : packed_size<T>(in, out);
    }
}

template <class T>
void copy_rows(const T* from, Index from_step, T* to, Index to_step, Index rows, Index width) {
    for (Index i = 0; i < rows; ++i) std::memcpy(to + i * to_step, from + i * from_step, width * sizeof(T));
}

// c (rows, columns) = a (rows, depth) times a packed matrix.
template <class T>
void times(const T* a, Index lda, const T* packed, Index depth, Index rows, Index columns, T* c, Index ldc) {
    multiply(Factors<T>{&a, &packed, 1, depth, lda}, rows, columns, c, ldc, false);
}

// z of one point becomes y; what the gradient needs goes to `kept`, unless it is null.
template <class T>
void activate(T* z, const T* bias, Index vectors, Index width, Index kind, T omega, T* kept) {
    constexpr Index lanes = Vector<T>::lanes;
    for (Index i = 0; i < vectors * lanes; i += lanes) {
        Numbers<T> value = load(z + i) + load(bias + i);
        if (kind == SINE) value = value * omega;
        if (kind == RELU) value = choose<T>(value < T(0), Numbers<T>{}, value);  // NaN stays
        store(z + i, value);
    }
    if (kept) std::memcpy(kept, z, width * sizeof(T));
    if (kind == SINE) sines(z, vectors);
    if (kind == WAVES) waves(z, z, static_cast<T*>(nullptr), width / 2, vectors);
}

template <class T>
void forward(const Layers<T>& net, Index fields, Index points, const T* x, Index x_step, T* values) {
    Index runs = run_count(fields, points), widest = net.widest(), block = block_size(widest, points, BLOCK);
    Index channels = net.out(net.count - 1);
#pragma omp parallel
    {
        Buffer<T> weights(packed_weights(net, false)), bias(stride<T>(widest)), here(block * stride<T>(widest)),
            there(block * stride<T>(widest));
#pragma omp for schedule(static)
        for (Index unit = 0; unit < fields * runs; ++unit) {
            Index field = unit / runs, run = unit % runs;
            pack_weights(net, field, false, static_cast<T*>(weights));
            Index stop = points * (run + 1) / runs;
            for (Index first = points * run / runs; first < stop; first += block) {
                Index rows = stop - first < block ? stop - first : block;
                const T *in = x + field * x_step + first * net.in(0), *packed = weights;
                Index lda = net.in(0);
                T *to = here, *next = there;
                for (Index i = 0; i < net.count; ++i) {
                    Index width = net.out(i), ld = stride<T>(width), vectors = ld / Vector<T>::lanes - 1;
                    times(in, lda, packed, net.in(i), rows, width, to, ld);
                    packed += packed_size<T>(net.in(i), width);
                    std::memset(bias + width, 0, (ld - width) * sizeof(T));
                    if (net.biases[i])
                        std::memcpy(bias, net.biases[i] + field * width, width * sizeof(T));
                    else
                        std::memset(bias, 0, width * sizeof(T));
                    T* kept = net.kept && net.kept[i] ? net.kept[i] + (field * points + first) * width : nullptr;
                    for (Index row = 0; row < rows; ++row)
                        activate(to + row * ld, static_cast<T*>(bias), vectors, width, net.kinds[i], T(net.omegas[i]),
                                 kept ? kept + row * width : nullptr);
                    in = to, lda = ld;
                    T* spare = to;
                    to = next, next = spare;
                }
                copy_rows(in, lda, values + (field * points + first) * channels, channels, rows, channels);
            }
        }
    }
}

// Gradients of one run of points: those of the weights (out, in) and biases (out) are added to what is there.
template <class T>
struct Backward {
    const Layers<T>& net;
    Index points, block, ld;
    bool learns, moves;  // whether weights, and points, have gradients
    Buffer<T> weights, slope, given, taken, inputs, turned, sums;

    Backward(const Layers<T>& net, Index points, bool learns, bool moves)
        : net(net), points(points), block(block_size(net.widest(), points, BLOCK_BACK)), ld(stride<T>(net.widest())), learns(learns),
          moves(moves), weights(packed_weights(net, true)), slope(block * ld), given(block * ld), taken(block * ld),
          inputs(block * ld), turned(Block<T>::columns * ld), sums(ld) {}

    void run(Index field, Index first, Index stop, const T* x, const T* asked, T* const* to_weights, T* const* to_biases,
             T* to_x) {
        pack_weights(net, field, true, static_cast<T*>(weights));
        for (; first < stop; first += block) {
            Index rows = stop - first < block ? stop - first : block, place = field * points + first;
            T *grad = given, *next = taken;
            Index layer = net.count - 1, channels = net.out(layer);
            copy_rows(asked + place * channels, channels, grad, ld, rows, channels);
            recall(layer, place, rows);
            scale(grad, net.kinds[layer], rows, channels);
            const T* packed = weights + packed_weights(net, true);
            for (; layer >= 0; --layer) {
                Index in = net.in(layer), out = net.out(layer);
                packed -= packed_size<T>(out, in);
                if (layer > 0)
                    recall(layer - 1, place, rows);
                else
                    copy_rows(x + first * in, in, static_cast<T*>(inputs), ld, rows, in);
                if (learns) learn(grad, rows, in, out, to_weights[layer], to_biases[layer]);
                if (layer == 0 && !moves) break;
                times(static_cast<const T*>(grad), ld, packed, out, rows, in, next, ld);
                if (layer > 0)
                    scale(next, net.kinds[layer - 1], rows, in);
                else
                    copy_rows(static_cast<const T*>(next), ld, to_x + place * in, in, rows, in);
                T* spare = grad;
                grad = next, next = spare;
            }
        }
    }

  private:
    // The values of a layer into `inputs`, and of sines their slopes, omega cos(omega z).
    void recall(Index layer, Index place, Index rows) {
        Index width = net.out(layer), vectors = round_up(width, Vector<T>::lanes) / Vector<T>::lanes;
        if (!net.kept[layer]) return;
        copy_rows<T>(net.kept[layer] + place * width, width, inputs, ld, rows, width);
        for (Index row = 0; row < rows; ++row) {
            T *t = inputs + row * ld, *to = slope + row * ld;
            if (net.kinds[layer] == SINE) sines_cosines(t, t, to, T(net.omegas[layer]), vectors);
            if (net.kinds[layer] == WAVES) waves(t, t, to, width / 2, vectors);
        }
    }

    void scale(T* grad, Index kind, Index rows, Index width) {
        if (kind == IDENTITY) return;
        for (Index row = 0; row < rows; ++row)
            for (Index i = row * ld; i < row * ld + width; i += Vector<T>::lanes) {
                Numbers<T> value = load(grad + i);
                if (kind == RELU)
                    value = choose<T>(load(inputs + i) > T(0), value, Numbers<T>{});
                else
                    value *= load(slope + i);
                store(grad + i, value);
            }
    }

    void learn(const T* grad, Index rows, Index in, Index out, T* to_weight, T* to_bias) {
        if (in < out && in < Block<T>::columns) {  // few columns would fill no vectors
            std::memset(turned, 0, in * ld * sizeof(T));
            outer(static_cast<const T*>(inputs), ld, grad, ld, rows, in, out, static_cast<T*>(turned), ld);
            for (Index o = 0; o < out; ++o)
                for (Index i = 0; i < in; ++i) to_weight[o * in + i] += turned[i * ld + o];
        } else {
            outer(grad, ld, static_cast<const T*>(inputs), ld, rows, out, in, to_weight, in);
        }
        if (!to_bias) return;
        for (Index o = 0; o < out; o += Vector<T>::lanes) {
            Numbers<T> sum = {};
            for (Index row = 0; row < rows; ++row) sum += load(grad + row * ld + o);
            store(sums + o, sum);
        }
        for (Index o = 0; o < out; ++o) to_bias[o] += sums[o];
    }
};

// Gradients of all fields; `to_weights`, whose tensors begin as zeros, is null where they are not wanted, `to_x` likewise.
template <class T>
void backward(const Layers<T>& net, Index fields, Index points, const T* x, Index x_step, const T* asked, T* const* to_weights,
              T* const* to_biases, T* to_x) {
    Index runs = run_count(fields, points), numbers = 0;
    std::vector<Index> weight_at(net.count), bias_at(net.count);
    for (Index i = 0; i < net.count; ++i) {
        weight_at[i] = numbers, bias_at[i] = numbers + net.out(i) * net.in(i);
        numbers = bias_at[i] + net.out(i);
    }
    std::vector<T> parts(runs > 1 && to_weights ? fields * runs * numbers : 0);  // sums of each run, added in order below
#pragma omp parallel
    {
        Backward<T> work(net, points, to_weights != nullptr, to_x != nullptr);
        std::vector<T*> weights(net.count), biases(net.count);
#pragma omp for schedule(static)
        for (Index unit = 0; unit < fields * runs; ++unit) {
            Index field = unit / runs, run = unit % runs;
            for (Index i = 0; to_weights && i < net.count; ++i) {
                T* part = runs > 1 ? parts.data() + unit * numbers : nullptr;
                weights[i] = part ? part + weight_at[i] : to_weights[i] + field * net.out(i) * net.in(i);
                biases[i] = !to_biases[i] ? nullptr : part ? part + bias_at[i] : to_biases[i] + field * net.out(i);
            }
            work.run(field, points * run / runs, points * (run + 1) / runs, x + field * x_step, asked, weights.data(),
                     biases.data(), to_x);
        }
#pragma omp for schedule(static)
        for (Index field = 0; field < (parts.empty() ? 0 : fields); ++field)
            for (Index run = 0; run < runs; ++run) {
                const T* part = parts.data() + (field * runs + run) * numbers;
                for (Index i = 0; i < net.count; ++i) {
                    Index out = net.out(i), size = out * net.in(i);
                    for (Index k = 0; k < size; ++k) to_weights[i][field * size + k] += part[weight_at[i] + k];
                    for (Index k = 0; to_biases[i] && k < out; ++k) to_biases[i][field * out + k] += part[bias_at[i] + k];
                }
            }
    }
}

}  // namespace inrbridge

using inrbridge::Index;
using inrbridge::Layers;

#define PERCEPTRON(T, name)                                                                                                    \
    void perceptron_forward_##name(Index count, const Index* widths, const Index* kinds, const double* omegas,                \
                                   const T* const* weights, const T* const* biases, T* const* kept, Index fields,             \
                                   Index points, const T* x, Index x_step, T* values) {                                       \
        inrbridge::forward<T>(Layers<T>{count, widths, kinds, omegas, weights, biases, kept}, fields, points, x, x_step,      \
                              values);                                                                                         \
    }                                                                                                                          \
    void perceptron_backward_##name(Index count, const Index* widths, const Index* kinds, const double* omegas,               \
                                    const T* const* weights, const T* const* biases, T* const* kept, Index fields,            \
                                    Index points, const T* x, Index x_step, const T* asked, T* const* to_weights,             \
                                    T* const* to_biases, T* to_x) {                                                           \
        inrbridge::backward<T>(Layers<T>{count, widths, kinds, omegas, weights, biases, kept}, fields, points, x, x_step,     \
                               asked, to_weights, to_biases, to_x);                                                            \
    }

extern "C" {
PERCEPTRON(float, f32)
PERCEPTRON(double, f64)
}

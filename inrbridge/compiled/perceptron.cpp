// Floor 1: many small networks at once: a row of layers z = W y + b, y = z, sin(omega z), max(z, 0), or the cosines of the first
// half of z and the sines of the second (waves), and their gradients.
//
// Layouts: points (fields, points, width) or (points, width) shared by all, weights (fields, out, in), biases (fields, out). A
// thread takes one field and a run of its points, and leads a block of points through all layers while it stays in the second
// cache. Of wide layers what the gradient needs is kept: the argument of a sine, whose sine and cosine are taken again, or y;
// narrow ones are evaluated again, block by block, for less than it costs to write and read their values.
// Runs do not depend on the number of threads, and their sums are added in order: results do not depend on it either.

#include <utility>
#include <vector>

#include "sine.h"

namespace inrbridge {

constexpr Index BLOCK = 24 << 10, BLOCK_BACK = 48 << 10;  // numbers of the widest layer in one block of points
constexpr Index BLOCK_AGAIN = 48 << 10;                    // of all layers together, where they are evaluated again
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
    T* const* kept;          // (fields, points, out) of each layer, or null: not wanted, or evaluated again

    Index in(Index layer) const { return widths[layer]; }
    Index out(Index layer) const { return widths[layer + 1]; }
    Index widest() const {
        Index most = 0;
        for (Index i = 0; i <= count; ++i) most = widths[i] > most ? widths[i] : most;
        return most;
    }
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

// z of one point becomes y; what the gradient needs goes to `kept`, or the slope of y to `slope`, unless they are null.
template <class T>
void activate(T* z, const T* bias, Index vectors, Index width, Index kind, T omega, T* kept, T* slope) {
    constexpr Index lanes = Vector<T>::lanes;
    for (Index i = 0; i < vectors * lanes; i += lanes) {
        Numbers<T> value = load(z + i) + load(bias + i);
        if (kind == SINE) value = value * omega;
        if (kind == RELU) value = choose<T>(value < T(0), Numbers<T>{}, value);  // NaN stays
        store(z + i, value);
    }
    if (kept) std::memcpy(kept, z, width * sizeof(T));
    if (kind == WAVES) waves(z, z, slope, width / 2, vectors);
    if (kind == SINE && slope) sines_cosines(z, z, slope, omega, vectors);
    if (kind == SINE && !slope) sines(z, vectors);
}

// One layer of a field at a block of points: from `in` to `to`.
template <class T>
struct Forward {
    const Layers<T>& net;
    Buffer<T> weights, bias;

    explicit Forward(const Layers<T>& net)
        : net(net), weights(packed_weights(net, false)), bias(stride<T>(net.widest())) {}

    void enter(Index field) { pack_weights(net, field, false, weights.data()); }

    void apply(Index layer, Index field, const T* packed, const T* in, Index lda, Index rows, T* to, Index ld, T* kept,
               T* slope) {
        Index width = net.out(layer), vectors = round_up(width, Vector<T>::lanes) / Vector<T>::lanes;
        times(in, lda, packed, net.in(layer), rows, width, to, ld);
        std::memset(bias.data(), 0, vectors * Vector<T>::lanes * sizeof(T));
        if (net.biases[layer]) std::memcpy(bias.data(), net.biases[layer] + field * width, width * sizeof(T));
        for (Index row = 0; row < rows; ++row)
            activate(to + row * ld, static_cast<const T*>(bias.data()), vectors, width, net.kinds[layer], T(net.omegas[layer]),
                     kept ? kept + row * width : nullptr, slope ? slope + row * ld : nullptr);
    }
};

template <class T>
void forward(const Layers<T>& net, Index fields, Index points, const T* x, Index x_step, T* values) {
    Index runs = run_count(fields, points), widest = net.widest(), block = block_size(widest, points, BLOCK);
    Index channels = net.out(net.count - 1), ld = stride<T>(widest);
#pragma omp parallel
    {
        Forward<T> work(net);
        Buffer<T> here(block * ld), there(block * ld);
#pragma omp for schedule(static)
        for (Index unit = 0; unit < fields * runs; ++unit) {
            Index field = unit / runs, run = unit % runs;
            work.enter(field);
            Index stop = points * (run + 1) / runs;
            for (Index first = points * run / runs; first < stop; first += block) {
                Index rows = stop - first < block ? stop - first : block, lda = net.in(0);
                const T *in = x + field * x_step + first * lda, *packed = work.weights.data();
                T *to = here.data(), *next = there.data();
                for (Index i = 0; i < net.count; ++i) {
                    T* kept = net.kept[i] ? net.kept[i] + (field * points + first) * net.out(i) : nullptr;
                    work.apply(i, field, packed, in, lda, rows, to, ld, kept, static_cast<T*>(nullptr));
                    packed += packed_size<T>(net.in(i), net.out(i));
                    in = to, lda = ld;
                    std::swap(to, next);
                }
                copy_rows(in, lda, values + (field * points + first) * channels, channels, rows, channels);
            }
        }
    }
}

// What the values of a network lead to: the gradient asked for, or the targets t of sum scale / 2 (y - t)^2.
template <class T>
struct Aim {
    const T* gradient;  // (fields, points, channels), or null
    const T* targets;
    T scale;
};

// Gradients of one run of points: those of the weights (out, in) and biases (out) are added to what is there. The values of the
// layers and their slopes come from what was kept, layer by layer; where nothing was, they are made here, all layers of a block.
template <class T>
struct Backward {
    const Layers<T>& net;
    const Aim<T>& aim;
    bool learns, moves, again;  // whether weights, and points, have gradients; whether nothing was kept
    Index points, block, ld, size;
    Forward<T> ahead;
    Buffer<T> weights, entered, values, slopes, given, taken, turned, sums;

    Backward(const Layers<T>& net, const Aim<T>& aim, Index points, bool learns, bool moves)
        : net(net), aim(aim), learns(learns), moves(moves), again(aim.targets || !keeps(net)), points(points),
          block(block_size(net.widest(), points, again ? BLOCK_AGAIN / net.count : BLOCK_BACK)), ld(stride<T>(net.widest())),
          size(block * ld), ahead(net), weights(packed_weights(net, true)), entered(size), values(size * (again ? net.count : 1)),
          slopes(size * (again ? net.count : 1)), given(size), taken(size), turned(Block<T>::columns * ld), sums(ld) {}

    void run(Index field, Index first, Index stop, const T* x, T* const* to_weights, T* const* to_biases, T* to_x) {
        pack_weights(net, field, true, weights.data());
        if (again) ahead.enter(field);
        for (; first < stop; first += block) {
            Index rows = stop - first < block ? stop - first : block;
            T *grad = given.data(), *next = taken.data();
            Index layer = net.count - 1, channels = net.out(layer), place = field * points + first;
            copy_rows(x + first * net.in(0), net.in(0), entered.data(), ld, rows, net.in(0));
            if (again) evaluate(field, rows);
            begin(grad, place * channels, rows, channels);
            recall(layer, place, rows);
            scale(grad, layer, rows);
            const T* packed = weights.data() + packed_weights(net, true);
            for (; layer >= 0; --layer) {
                Index in = net.in(layer), out = net.out(layer);
                packed -= packed_size<T>(out, in);
                if (layer > 0) recall(layer - 1, place, rows);
                if (learns)
                    learn(layer > 0 ? at(values, layer - 1) : entered.data(), grad, rows, in, out, to_weights[layer],
                          to_biases[layer]);
                if (layer == 0 && !moves) break;
                times(static_cast<const T*>(grad), ld, packed, out, rows, in, next, ld);
                if (layer > 0)
                    scale(next, layer - 1, rows);
                else
                    copy_rows(static_cast<const T*>(next), ld, to_x + place * in, in, rows, in);
                std::swap(grad, next);
            }
        }
    }

  private:
    static bool keeps(const Layers<T>& net) {
        for (Index i = 0; i < net.count; ++i)
            if (net.kept[i]) return true;
        return net.count == 1 && net.kinds[0] == IDENTITY;  // nothing to make again
    }

    T* at(Buffer<T>& buffer, Index layer) { return buffer.data() + (again ? layer * size : 0); }

    void evaluate(Index field, Index rows) {
        const T *in = entered.data(), *packed = ahead.weights.data();
        for (Index i = 0; i < net.count; ++i) {
            bool waves = net.kinds[i] == SINE || net.kinds[i] == WAVES;
            if (i == net.count - 1 && net.kinds[i] == IDENTITY && !aim.targets) break;  // its values are not asked for
            ahead.apply(i, field, packed, in, ld, rows, at(values, i), ld, static_cast<T*>(nullptr),
                        waves ? at(slopes, i) : nullptr);
            packed += packed_size<T>(net.in(i), net.out(i));
            in = at(values, i);
        }
    }

    void begin(T* grad, Index place, Index rows, Index channels) {
        if (!aim.targets) return copy_rows(aim.gradient + place, channels, grad, ld, rows, channels);
        const T* found = at(values, net.count - 1);
        for (Index row = 0; row < rows; ++row)
            for (Index i = 0; i < channels; ++i)
                grad[row * ld + i] = aim.scale * (found[row * ld + i] - aim.targets[place + row * channels + i]);
    }

    // The values of a layer, and of sines their slopes, omega cos(omega z), of what was kept.
    void recall(Index layer, Index place, Index rows) {
        Index width = net.out(layer), vectors = round_up(width, Vector<T>::lanes) / Vector<T>::lanes;
        if (!net.kept[layer]) return;
        copy_rows<T>(net.kept[layer] + place * width, width, values.data(), ld, rows, width);
        for (Index row = 0; row < rows; ++row) {
            T *t = values.data() + row * ld, *to = slopes.data() + row * ld;
            if (net.kinds[layer] == SINE) sines_cosines(t, t, to, T(net.omegas[layer]), vectors);
            if (net.kinds[layer] == WAVES) waves(t, t, to, width / 2, vectors);
        }
    }

    // The gradient of y becomes that of z.
    void scale(T* grad, Index layer, Index rows) {
        if (net.kinds[layer] == IDENTITY) return;
        const T* from = at(net.kinds[layer] == RELU ? values : slopes, layer);
        for (Index row = 0; row < rows; ++row)
            for (Index i = row * ld; i < row * ld + net.out(layer); i += Vector<T>::lanes) {
                Numbers<T> value = load(grad + i);
                if (net.kinds[layer] == RELU)
                    value = choose<T>(load(from + i) > T(0), value, Numbers<T>{});
                else
                    value *= load(from + i);
                store(grad + i, value);
            }
    }

    void learn(const T* inputs, const T* grad, Index rows, Index in, Index out, T* to_weight, T* to_bias) {
        if (in < out && in < Block<T>::columns) {  // few columns would fill no vectors
            std::memset(turned.data(), 0, in * ld * sizeof(T));
            outer(inputs, ld, grad, ld, rows, in, out, turned.data(), ld);
            for (Index o = 0; o < out; ++o)
                for (Index i = 0; i < in; ++i) to_weight[o * in + i] += turned[i * ld + o];
        } else {
            outer(grad, ld, inputs, ld, rows, out, in, to_weight, in);
        }
        if (!to_bias) return;
        for (Index o = 0; o < out; o += Vector<T>::lanes) {
            Numbers<T> sum = {};
            for (Index row = 0; row < rows; ++row) sum += load(grad + row * ld + o);
            store(sums.data() + o, sum);
        }
        for (Index o = 0; o < out; ++o) to_bias[o] += sums[o];
    }
};

// Gradients of all fields; `to_weights`, whose tensors begin as zeros, is null where they are not wanted, `to_x` likewise.
template <class T>
void backward(const Layers<T>& net, Index fields, Index points, const T* x, Index x_step, Aim<T> aim, T* const* to_weights,
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
        Backward<T> work(net, aim, points, to_weights != nullptr, to_x != nullptr);
        std::vector<T*> weights(net.count), biases(net.count);
#pragma omp for schedule(static)
        for (Index unit = 0; unit < fields * runs; ++unit) {
            Index field = unit / runs, run = unit % runs;
            for (Index i = 0; to_weights && i < net.count; ++i) {
                T* part = runs > 1 ? parts.data() + unit * numbers : nullptr;
                weights[i] = part ? part + weight_at[i] : to_weights[i] + field * net.out(i) * net.in(i);
                biases[i] = !to_biases[i] ? nullptr : part ? part + bias_at[i] : to_biases[i] + field * net.out(i);
            }
            work.run(field, points * run / runs, points * (run + 1) / runs, x + field * x_step, weights.data(), biases.data(),
                     to_x);
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
    void perceptron_backward_##name(Index count, const Index* widths, const Index* kinds, const double* omegas,                \
                                    const T* const* weights, const T* const* biases, T* const* kept, Index fields,             \
                                    Index points, const T* x, Index x_step, const T* gradient, const T* targets, double scale, \
                                    T* const* to_weights, T* const* to_biases, T* to_x) {                                      \
        inrbridge::backward<T>(Layers<T>{count, widths, kinds, omegas, weights, biases, kept}, fields, points, x, x_step,      \
                               {gradient, targets, T(scale)}, to_weights, to_biases, to_x);                                    \
    }

extern "C" {
PERCEPTRON(float, f32)
PERCEPTRON(double, f64)
}

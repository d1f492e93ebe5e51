// Floor 1: products whose rows come from and go to lists of places: out[to_p] += w_p in[from_p] B for every pair p of a list.
#pragma once

#include <algorithm>
#include <vector>

#include "gemm.h"

namespace inrbridge {

// Blocks of `size` output points of an order in which near ones follow one another; block q owns runs bounds[q] to
// bounds[q + 1], run r the pairs starts[r] to starts[r + 1].
struct PointBlocks {
    Index count, size, points;
    const std::int64_t *order, *bounds, *starts, *nodes;
    const std::int64_t *target, *source;

    // Sets the results of the points of a block to zero, `numbers` each.
    template <class T>
    void clear(Index block, Index numbers, T* out) const {
        Index last = std::min((block + 1) * size, points);
        for (Index i = block * size; i < last; ++i) std::memset(out + order[i] * numbers, 0, numbers * sizeof(T));
    }
};

// Pairs of b rows each: from + from_index[p] * b * depth, to + to_index[p] * b * columns, and a weight.
template <class T>
struct Rows {
    const T* from;
    const std::int64_t* from_index;
    T* to;
    const std::int64_t* to_index;
    const T* weight;
    Index b, depth, columns;
};

// Some rows of a list, for one register block.
template <class T>
struct Picked {
    const T* from[Block<T>::rows];
    T* to[Block<T>::rows];
    T weight[Block<T>::rows];
};

// Goes through the rows of a list, and asks for the memory of those it picks.
template <class T>
class Picker {
  public:
    explicit Picker(const Rows<T>& list) : list_(list) {}

    void pick(Index count, Picked<T>& rows) {
        for (Index i = 0; i < count; ++i) {
            const T* from = list_.from + (list_.from_index[pair_] * list_.b + field_) * list_.depth;
            for (Index x = 0; x < list_.depth; x += 64 / sizeof(T)) __builtin_prefetch(from + x);
            rows.from[i] = from;
            rows.to[i] = list_.to + (list_.to_index[pair_] * list_.b + field_) * list_.columns;
            rows.weight[i] = list_.weight[pair_];
            if (++field_ == list_.b) field_ = 0, ++pair_;
        }
    }

  private:
    const Rows<T>& list_;
    Index pair_ = 0, field_ = 0;
};

// Adds the products of picked rows and packed strips of whole vectors, `wanted` numbers wide in all. Rows may go to the same
// place: they are added one after the other.
template <class T, int rows, int vectors>
void scatter_block(const Picked<T>& picked, Index depth, const T* right, Index column, Index wanted) {
    constexpr Index lanes = Vector<T>::lanes, width = vectors * lanes;
    const T* left[rows];
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) left[i] = picked.from[i];
    for (; wanted > 0; wanted -= width, column += width) {
        Numbers<T> sum[rows][vectors];
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) sum[i][v] = Numbers<T>{};
        for (Index p = 0; p < depth; ++p, right += width) {
            Numbers<T> row[vectors];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) row[v] = load(right + v * lanes);
#pragma GCC unroll 16
            for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v) sum[i][v] += left[i][p] * row[v];
        }
        if (wanted >= width) {
#pragma GCC unroll 16
            for (int i = 0; i < rows; ++i) {
                T* to = picked.to[i] + column;
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v) store(to + v * lanes, load(to + v * lanes) + picked.weight[i] * sum[i][v]);
            }
        } else {  // the last vector reaches beyond the columns
            T spare[rows][width];
#pragma GCC unroll 16
            for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v) store(spare[i] + v * lanes, picked.weight[i] * sum[i][v]);
            for (int i = 0; i < rows; ++i)
                for (Index x = 0; x < wanted; ++x) picked.to[i][column + x] += spare[i][x];
        }
    }
}

template <class T>
struct ScatterBlocks {
    typedef void (*Kernel)(const Picked<T>&, Index, const T*, Index, Index);

    template <std::size_t... each>
    static constexpr std::array<Kernel, sizeof...(each)> all(std::index_sequence<each...>) {
        return {scatter_block<T, each / Block<T>::vectors + 1, each % Block<T>::vectors + 1>...};
    }
    static constexpr auto kernels = all(std::make_index_sequence<Block<T>::rows * Block<T>::vectors>{});
    static Kernel find(Index rows, Index vectors) { return kernels[(rows - 1) * Block<T>::vectors + vectors - 1]; }
};

// to[p] += w[p] from[p] B for `pairs` pairs and a packed right factor B (depth, columns).
template <class T>
void scatter_product(const Rows<T>& list, Index pairs, const T* packed) {
    constexpr Index lanes = Vector<T>::lanes, widest = Block<T>::columns;
    const Index rows = pairs * list.b, parts = (rows + Block<T>::rows - 1) / Block<T>::rows;
    const Index low = rows / parts, high = rows % parts;  // even blocks, 4 + 4 and not 6 + 2: the first `high` are one row higher
    const Index full = list.columns / widest * widest, rest = list.columns - full;
    Picker<T> picker(list);
    Picked<T> picked[2];
    picker.pick(low + (0 < high), picked[0]);
    for (Index part = 0; part < parts; ++part) {
        if (part + 1 < parts) picker.pick(low + (part + 1 < high), picked[(part + 1) % 2]);
        Index height = low + (part < high);
        const Picked<T>& some = picked[part % 2];
        if (full) ScatterBlocks<T>::find(height, Block<T>::vectors)(some, list.depth, packed, 0, full);
        if (!rest) continue;
        ScatterBlocks<T>::find(height, (rest + lanes - 1) / lanes)(some, list.depth, packed + full * list.depth, full, rest);
    }
}

// The rows of `pairs` pairs times their weights, packed like a right factor.
template <class T>
void scaled_strips(const Rows<T>& list, Index pairs, T* to) {
    for (Index column = 0; column < list.depth; column += Block<T>::columns) {
        Index wanted = std::min(list.depth - column, Block<T>::columns), width = round_up(wanted, Vector<T>::lanes);
        for (Index p = 0; p < pairs; ++p) {
            const T* from = list.from + list.from_index[p] * list.b * list.depth + column;
            for (Index field = 0; field < list.b; ++field, from += list.depth, to += width) {
                if (wanted == Block<T>::columns) {
#pragma GCC unroll 4
                    for (Index v = 0; v < Block<T>::vectors; ++v)
                        store(to + v * Vector<T>::lanes, list.weight[p] * load(from + v * Vector<T>::lanes));
                } else {
                    for (Index x = 0; x < width; ++x) to[x] = x < wanted ? list.weight[p] * from[x] : T(0);
                }
            }
        }
    }
}

// The transpose of listed left factors (depth, lda each, as they lie) times packed strips of as many rows.
template <class T>
struct Listed {
    const T* const* left;
    const T* right;
    Index count, depth, lda;
    Index packed_rows;

    template <int rows, int vectors>
    void add_to(Numbers<T> (&sum)[rows][vectors], Index row, Index column) const {
        const T* strip = right + column * packed_rows;
        for (Index s = 0; s < count; ++s) {
            const T* from = left[s] + row;
            for (Index p = 0; p < depth; ++p, from += lda, strip += vectors * Vector<T>::lanes) add_outer(sum, from, 1, strip);
        }
    }
};

// Listed rows times a matrix as it lies.
template <class T>
struct Matched {
    const T* const* listed;
    const T* right;
    Index depth, ldb;

    template <int rows, int vectors>
    void add_to(Numbers<T> (&sum)[rows][vectors], Index row, Index column) const {
        const T* left[rows];
        for (int i = 0; i < rows; ++i) left[i] = listed[row + i];
        const T* to = right + column;
        for (Index p = 0; p < depth; ++p, to += ldb) {
            Numbers<T> values[vectors];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) values[v] = load(to + v * Vector<T>::lanes);
#pragma GCC unroll 16
            for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v) sum[i][v] += left[i][p] * values[v];
        }
    }
};

}  // namespace inrbridge

// Floor 1: products of small dense matrices that stay in cache, in float or double, and their building blocks.
//
// A vector is VECTOR_BYTES wide, as the machine it is compiled for has it; a register block is Block<T>::rows x
// Block<T>::columns numbers of the result. The right factor is packed once (`pack`), the left one is read where it lies:
//
//   multiply: c[m][q]  = sum_s sum_p a_s[m * lda + p] * B_s[p][q]       a list of left and right factors, summed
//   outer:    c[m][q]  += sum_p a[p * lda + m] * b[p * ldb + q]          both factors as they lie
//
// Every number of a result is summed in one order, whatever the number of threads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

namespace inrbridge {

using Index = std::int64_t;

struct bfloat16 {
    std::uint16_t bits;
};

// One vector of numbers, loaded and stored at any address; numbers of two bytes are widened on load and rounded on store.
template <class T>
struct Vector {
    static constexpr Index lanes = VECTOR_BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(VECTOR_BYTES)));
};

template <class T>
using Numbers = typename Vector<T>::type;

template <class T>
inline Numbers<T> load(const T* from) {
    Numbers<T> value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class T>
inline void store(T* to, Numbers<T> value) {
    std::memcpy(to, &value, sizeof value);
}

inline float widen(bfloat16 value) {
    std::uint32_t bits = std::uint32_t(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline bfloat16 narrow(float value) {  // to the nearest, ties to even
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return {std::uint16_t((bits >> 16) | 0x40)};
    return {std::uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)};
}

inline Numbers<float> load(const bfloat16* from) {
    typedef std::uint16_t halves __attribute__((vector_size(VECTOR_BYTES / 2)));
    typedef std::uint32_t words __attribute__((vector_size(VECTOR_BYTES)));
    halves half;
    std::memcpy(&half, from, sizeof half);
    words bits = __builtin_convertvector(half, words) << 16;
    Numbers<float> value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline void store(bfloat16* to, Numbers<float> value) {
    for (Index lane = 0; lane < Vector<float>::lanes; ++lane) to[lane] = narrow(value[lane]);
}

// The type in which numbers stored as T are summed, and single numbers to and from it.
template <class T>
struct Sum {
    typedef T type;
};
template <>
struct Sum<bfloat16> {
    typedef float type;
};
template <class T>
inline T wide(T value) {
    return value;
}
inline float wide(bfloat16 value) { return widen(value); }
template <class T>
inline void put(T* to, T value) {
    *to = value;
}
inline void put(bfloat16* to, float value) { *to = narrow(value); }

// A vector of numbers at the start of a cache line: loads that cross a line cost twice.
template <class T>
struct Aligned {
    typedef T value_type;
    static constexpr std::align_val_t line{64};
    Aligned() = default;
    template <class U>
    Aligned(const Aligned<U>&) {}
    T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), line)); }
    void deallocate(T* from, std::size_t) { ::operator delete(from, line); }
    template <class U>
    bool operator==(const Aligned<U>&) const { return true; }
    template <class U>
    bool operator!=(const Aligned<U>&) const { return false; }
};

template <class T>
using Buffer = std::vector<T, Aligned<T>>;

// The block of results that the vector registers hold: 16 of them on AVX2, 32 on AVX-512 and on arm64.
template <class T>
struct Block {
    static constexpr Index rows = VECTOR_BYTES == 64 ? 12 : 6;
    static constexpr Index vectors = VECTOR_BYTES == 16 ? 4 : 2;
    static constexpr Index columns = vectors * Vector<T>::lanes;
};

inline Index round_up(Index count, Index step) { return (count + step - 1) / step * step; }

// Numbers of a packed right factor of `depth` rows and `columns` columns.
template <class T>
inline Index packed_size(Index depth, Index columns) {
    return depth * round_up(columns, Vector<T>::lanes);
}

// Pack the matrix from[p * row_step + q * column_step]: strips of Block<T>::columns columns (the last one narrower), row
// by row inside a strip, filled up with zeros to whole vectors.
template <class T, class S>
void pack(const S* from, Index depth, Index columns, Index row_step, Index column_step, T* to) {
    for (Index first = 0; first < columns; first += Block<T>::columns) {
        Index wanted = columns - first < Block<T>::columns ? columns - first : Block<T>::columns;
        Index width = round_up(wanted, Vector<T>::lanes);
        for (Index p = 0; p < depth; ++p, to += width)
            for (Index q = 0; q < width; ++q)
                to[q] = q < wanted ? T(wide(from[p * row_step + (first + q) * column_step])) : T(0);
    }
}

// One step of a product: a column of `rows` numbers times a row of whole vectors.
template <class T, int rows, int vectors>
inline void add_outer(Numbers<T> (&sum)[rows][vectors], const T* left, Index step, const T* right) {
    Numbers<T> row[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) row[v] = load(right + v * Vector<T>::lanes);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[i][v] += left[i * step] * row[v];
}

// Left and right factors of a sum of products: a[s] points at row 0 of a matrix (rows lda apart), b[s] at a packed one.
template <class T>
struct Factors {
    const T* const* a;
    const T* const* b;
    Index count;  // of pairs
    Index depth;  // columns of each a[s], rows of each b[s]
    Index lda;

    template <int rows, int vectors>
    void add_to(Numbers<T> (&sum)[rows][vectors], Index row, Index column) const {
        for (Index s = 0; s < count; ++s) {
            const T* left = a[s] + row * lda;
            const T* right = b[s] + column * depth;
            for (Index p = 0; p < depth; ++p, right += vectors * Vector<T>::lanes) add_outer(sum, left + p, lda, right);
        }
    }
};

// The factors of an outer product, as they lie.
template <class T>
struct Columns {
    const T* a;
    Index lda;
    const T* b;
    Index ldb;
    Index depth;

    template <int rows, int vectors>
    void add_to(Numbers<T> (&sum)[rows][vectors], Index row, Index column) const {
        const T *left = a + row, *right = b + column;
        for (Index p = 0; p < depth; ++p, left += lda, right += ldb) add_outer(sum, left, 1, right);
    }
};

// A register block of a product, at (row, column) of the result, whose place is c.
template <class T, class Product, int rows, int vectors>
void block(const Product& product, Index row, Index column, T* c, Index ldc, bool add) {
    Numbers<T> sum[rows][vectors];
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[i][v] = add ? load(c + i * ldc + v * Vector<T>::lanes) : Numbers<T>{};
    product.add_to(sum, row, column);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) store(c + i * ldc + v * Vector<T>::lanes, sum[i][v]);
}

// The kernels of all heights and widths of a block: that of (rows, vectors) is at (rows - 1) * Block<T>::vectors + vectors - 1.
template <class T, class Product>
struct Blocks {
    typedef void (*Kernel)(const Product&, Index, Index, T*, Index, bool);

    template <std::size_t... each>
    static constexpr std::array<Kernel, sizeof...(each)> all(std::index_sequence<each...>) {
        return {block<T, Product, each / Block<T>::vectors + 1, each % Block<T>::vectors + 1>...};
    }
    static constexpr auto kernels = all(std::make_index_sequence<Block<T>::rows * Block<T>::vectors>{});
};

// c (rows, columns), rows ldc apart, becomes a product, or the sum of what it holds and the product. Rows are split evenly:
// blocks of 4 + 4 are faster than 6 + 2.
template <class T, class Product>
void compute(const Product& product, Index rows, Index columns, T* c, Index ldc, bool add) {
    constexpr Index widest = Block<T>::columns, lanes = Vector<T>::lanes;
    Index count = (rows + Block<T>::rows - 1) / Block<T>::rows;
    for (Index column = 0; column < columns; column += widest) {
        Index wanted = columns - column < widest ? columns - column : widest;
        Index width = round_up(wanted, lanes);
        for (Index part = 0, row = 0; part < count; ++part) {
            Index height = rows / count + (part < rows % count);
            T* to = c + row * ldc + column;
            auto kernel = Blocks<T, Product>::kernels[(height - 1) * Block<T>::vectors + width / lanes - 1];
            if (wanted == width) {
                kernel(product, row, column, to, ldc, add);
            } else {  // the last vector reaches beyond the columns
                T spare[Block<T>::rows * widest] = {};
                for (Index i = 0; add && i < height; ++i) std::memcpy(spare + i * width, to + i * ldc, wanted * sizeof(T));
                kernel(product, row, column, spare, width, add);
                for (Index i = 0; i < height; ++i) std::memcpy(to + i * ldc, spare + i * width, wanted * sizeof(T));
            }
            row += height;
        }
    }
}

// c (rows, columns), rows ldc apart, becomes the sum of the products; with `add` it is added to what c holds.
template <class T>
void multiply(const Factors<T>& factors, Index rows, Index columns, T* c, Index ldc, bool add) {
    compute<T>(factors, rows, columns, c, ldc, add);
}

// c (rows, columns) += the transpose of a (depth, rows) times b (depth, columns). Reads up to Vector<T>::lanes - 1 numbers
// beyond the last row of b.
template <class T>
void outer(const T* a, Index lda, const T* b, Index ldb, Index depth, Index rows, Index columns, T* c, Index ldc) {
    compute<T>(Columns<T>{a, lda, b, ldb, depth}, rows, columns, c, ldc, true);
}

}  // namespace inrbridge

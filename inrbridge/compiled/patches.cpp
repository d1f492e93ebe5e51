// Floor 1: a stencil cut into patches of neighbouring points, for kernels that work in cache.
//
// A stencil has rows i * nodes + node of output point i: row r holds weights[e] in columns[e] for e from offsets[r] to
// offsets[r + 1]. Points that read the same columns are neighbours, whatever domain they lie on: nothing else is needed to
// find `size` of them that read few columns together. Those columns, each once, are the halo of the patch.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace {

typedef std::int64_t Index;
typedef std::int32_t Place;

// Which points read a column, and which columns a point reads, each once.
struct Readers {
    std::vector<Index> column_starts, point_starts;
    std::vector<Place> columns, points;  // by point, by column

    Readers(const Index* offsets, const Index* from, Index count, Index nodes, Index width)
        : column_starts(width + 1), point_starts(count + 1) {
        std::vector<Place> last(width, -1);
        columns.reserve(offsets[count * nodes]);
        for (Index i = 0; i < count; ++i) {
            for (Index e = offsets[i * nodes]; e < offsets[(i + 1) * nodes]; ++e)
                if (last[from[e]] != i) {
                    last[from[e]] = Place(i);
                    columns.push_back(Place(from[e]));
                    ++column_starts[from[e] + 1];
                }
            point_starts[i + 1] = Index(columns.size());
        }
        std::partial_sum(column_starts.begin(), column_starts.end(), column_starts.begin());
        std::vector<Index> next(column_starts.begin(), column_starts.end() - 1);
        points.resize(columns.size());
        for (Index i = 0; i < count; ++i)
            for (Index e = point_starts[i]; e < point_starts[i + 1]; ++e) points[next[columns[e]]++] = Place(i);
    }

    Index reads(Index point) const { return point_starts[point + 1] - point_starts[point]; }
};

// Grows patches one after another: the next point is the one with the largest share of its columns in the halo already. A new
// patch starts where the one before would have gone on.
void grow(const Readers& readers, Index count, Index size, Place* order) {
    std::vector<Place> shared(count, 0), near;
    std::vector<char> taken(count, 0);
    std::vector<Index> in_halo(readers.column_starts.size() - 1, -1);
    auto best = [&]() {
        Index found = -1;
        for (Index point : near)
            if (!taken[point] && (found < 0 || shared[point] * readers.reads(found) > shared[found] * readers.reads(point)))
                found = point;
        return found;
    };
    Index fresh = 0, done = 0;
    for (Index patch = 0; done < count; ++patch) {
        Index next = best();
        for (Index point : near) shared[point] = 0;
        near.clear();
        for (Index grown = 0; grown < size && done < count; ++grown) {
            while (next < 0 && taken[fresh]) ++fresh;
            if (next < 0) next = fresh;
            taken[next] = 1;
            order[done++] = Place(next);
            for (Index e = readers.point_starts[next]; e < readers.point_starts[next + 1]; ++e) {
                Index column = readers.columns[e];
                if (in_halo[column] == patch) continue;
                in_halo[column] = patch;
                for (Index r = readers.column_starts[column]; r < readers.column_starts[column + 1]; ++r) {
                    Place point = readers.points[r];
                    if (!taken[point] && shared[point]++ == 0) near.push_back(point);
                }
            }
            next = best();
        }
    }
}

template <class T>
void cut(const Index* offsets, const Index* columns, const double* weights, Index count, Index nodes, Index width, Index size,
          Place* order, Place* starts, Place* index, T* weight, Place* halo_starts, Place* halo) {
    grow(Readers(offsets, columns, count, nodes, width), count, size, order);
    std::vector<Index> patch_of(width, -1);
    std::vector<Place> place(width);
    Index entry = 0, read = 0;
    starts[0] = 0;
    for (Index at = 0; at < count; ++at) {
        Index patch = at / size;
        if (at % size == 0) halo_starts[patch] = Place(read);
        for (Index row = order[at] * nodes; row < (order[at] + 1) * nodes; ++row) {
            for (Index e = offsets[row]; e < offsets[row + 1]; ++e, ++entry) {
                Index column = columns[e];
                if (patch_of[column] != patch) {
                    patch_of[column] = patch;
                    place[column] = Place(read - halo_starts[patch]);
                    halo[read++] = Place(column);
                }
                index[entry] = place[column];
                weight[entry] = T(weights[e]);
            }
            starts[at * nodes + row % nodes + 1] = Place(entry);
        }
    }
    halo_starts[(count + size - 1) / size] = Place(read);
}

// Sorts the entries of each point by what they read: reads[i] of a point stands for the entries bounds[i] to bounds[i + 1].
template <class T>
void turn(const Place* starts, const Place* index, const T* weight, const Place* halo_starts, Index count, Index nodes,
          Index size, Place* read_starts, Place* reads, Place* bounds, Place* node, T* turned) {
    std::vector<Place> entries;
    Index read = 0, entry = 0;
    for (Index at = 0; at < count; ++at) {
        Index patch = at / size;
        entries.assign(halo_starts[patch + 1] - halo_starts[patch] + 1, 0);
        Place first = starts[at * nodes], last = starts[(at + 1) * nodes];
        for (Place e = first; e < last; ++e) ++entries[index[e] + 1];
        read_starts[at] = Place(read);
        for (Index place = 0; place + 1 < Index(entries.size()); ++place) {
            if (entries[place + 1] > 0) {
                reads[read] = Place(place);
                bounds[read++] = Place(entry) + entries[place];
            }
            entries[place + 1] += entries[place];
        }
        for (Index k = 0; k < nodes; ++k)
            for (Place e = starts[at * nodes + k]; e < starts[at * nodes + k + 1]; ++e) {
                Index to = entry + entries[index[e]]++;
                node[to] = Place(k);
                turned[to] = weight[e];
            }
        entry += last - first;
    }
    read_starts[count] = Place(read);
    bounds[read] = Place(entry);
}

}  // namespace

extern "C" {

// Patches of `size` points. order (count): the points, patch after patch; starts (count * nodes + 1), index and weight (entries):
// the rows in that order, with places in the halo of their patch for columns; halo_starts (patches + 1) and halo (at most the
// entries long): columns.
void patches_cut_float32(const Index* offsets, const Index* columns, const double* weights, Index count, Index nodes, Index width,
                         Index size, Place* order, Place* starts, Place* index, float* weight, Place* halo_starts, Place* halo) {
    cut(offsets, columns, weights, count, nodes, width, size, order, starts, index, weight, halo_starts, halo);
}

void patches_cut_float64(const Index* offsets, const Index* columns, const double* weights, Index count, Index nodes, Index width,
                         Index size, Place* order, Place* starts, Place* index, double* weight, Place* halo_starts, Place* halo) {
    cut(offsets, columns, weights, count, nodes, width, size, order, starts, index, weight, halo_starts, halo);
}

// The entries of each point by what it reads. read_starts (count + 1); reads (at most the entries): places in the halo; bounds
// (one more): entries of each; node and turned (entries): their nodes, ascending, and weights.
void patches_turn_float32(const Place* starts, const Place* index, const float* weight, const Place* halo_starts, Index count,
                          Index nodes, Index size, Place* read_starts, Place* reads, Place* bounds, Place* node, float* turned) {
    turn(starts, index, weight, halo_starts, count, nodes, size, read_starts, reads, bounds, node, turned);
}

void patches_turn_float64(const Place* starts, const Place* index, const double* weight, const Place* halo_starts, Index count,
                          Index nodes, Index size, Place* read_starts, Place* reads, Place* bounds, Place* node, double* turned) {
    turn(starts, index, weight, halo_starts, count, nodes, size, read_starts, reads, bounds, node, turned);
}

}  // extern "C"

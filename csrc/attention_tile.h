// The work on one tile of queries, written once and compiled for several instruction sets:
// attention.cpp includes this file in a namespace and under a target each, which define
//
//     kWidth, kRows   lanes of a vector, and queries of a tile: kRows x 2 accumulators, 2 vectors
//                     and a broadcast value fill the registers
//     kPair           values that one lane of a product takes at once
//     Element         a value in memory, and in the packed operands
//     Vector          kWidth floats
//     Integer         kWidth whole numbers of 32 bits
//     Group, Lanes    kPair elements for all lanes, and of every lane; group(p), lanes(p) load them
//     multiply_add(sum, group, lanes)      sum + the products of a group with those of every lane
//     store_weights(p, v)                  kWidth weights as elements
//     narrow(v)                            a float as an element
//
// No include guard: it is included several times.

constexpr int kPanel = 2 * kWidth;

struct Scratch {
    Element* keys;     // of a block: panels of kPanel keys, (dim / kPair, kPanel, kPair) each
    Element* values;   // of a block: (kBlock / kPair, kPanel, kPair) for every kPanel of dim
    Element* queries;  // of a tile: (dim / kPair, kRows, kPair)
    Element* weights;  // of a tile: (kRows, kRow)
    float* scores;     // of a tile: (kRows, kRow)
    float* sums;       // of all queries of a task: (queries, dim)
    float* largest;    // (queries,)
    float* totals;     // (queries, kWidth), to be added up
};

template <class T>
DTG_INLINE Vector load(const T* p) {
    return *reinterpret_cast<const Vector*>(p);
}

DTG_INLINE void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }

// 2^x for x <= 0, to an error of 2e-7; 2^-126 for what is smaller.  A nan stays one.
DTG_INLINE Vector exp2(Vector x) {
    const Vector lowest = Vector{} - 126.0f;
    x = x < lowest ? lowest : x;
    const Vector shifted = x + 12582912.0f;  // 1.5 * 2^23: its last bits are round(x)
    const Vector f = x - (shifted - 12582912.0f);
    Vector p = Vector{} + 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (Vector)((Integer)p + ((Integer)shifted << 23));
}

// scores (kRows, NV vectors) of a tile of queries against one panel of keys.
template <int NV>
DTG_INLINE void multiply_keys(const Element* queries, const Element* panel, float* scores,
                          std::int64_t dim) {
    Vector sum[kRows][NV] = {};
    for (std::int64_t d = 0; d < dim; d += kPair) {
        Lanes key[NV];
        for (int j = 0; j < NV; ++j) key[j] = lanes(panel + d * kPanel + j * kWidth * kPair);
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) {
            const Group q = group(queries + d * kRows + r * kPair);
#pragma GCC unroll 2
            for (int j = 0; j < NV; ++j) sum[r][j] = multiply_add(sum[r][j], q, key[j]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) store(scores + r * kRow + j * kWidth, sum[r][j]);
    }
}

// sums (kRows, NV vectors of dim) = factor * sums + weights * values.
template <int NV>
DTG_INLINE void multiply_values(const Element* weights, const Element* values, const float* factor,
                            float* sums, std::int64_t keys, std::int64_t dim) {
    Vector sum[kRows][NV];
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) sum[r][j] = factor[r] * load(sums + r * dim + j * kWidth);
    }
    for (std::int64_t k = 0; k < keys; k += kPair) {
        Lanes value[NV];
        for (int j = 0; j < NV; ++j) value[j] = lanes(values + k * kPanel + j * kWidth * kPair);
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) {
            const Group w = group(weights + r * kRow + k);
#pragma GCC unroll 2
            for (int j = 0; j < NV; ++j) sum[r][j] = multiply_add(sum[r][j], w, value[j]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) store(sums + r * dim + j * kWidth, sum[r][j]);
    }
}

// Scores to weights, relative to the largest score so far; what was summed up before has to be
// multiplied by `factor`.  `keys` counts whole vectors; 2^(scale * score) is the weight.
DTG_INLINE void softmax_rows(const Scratch& at, std::int64_t first, std::int64_t keys, float scale,
                         float* factor) {
    for (int r = 0; r < kRows; ++r) {
        const float* row = at.scores + r * kRow;
        Vector top = load(row);
        for (std::int64_t k = kWidth; k < keys; k += kWidth) {
            const Vector s = load(row + k);
            top = s > top ? s : top;
        }
        float& largest = at.largest[first + r];
        float peak = largest;
        for (int lane = 0; lane < kWidth; ++lane) peak = std::max(peak, top[lane]);
        // Both are finite, as the first scores are: there is no difference of two infinities.
        factor[r] = exp2(Vector{} + scale * (largest - peak))[0];
        largest = peak;
        float* totals = at.totals + (first + r) * kWidth;
        Vector total = factor[r] * load(totals);
        for (std::int64_t k = 0; k < keys; k += kWidth) {
            const Vector w = exp2(scale * load(row + k) - scale * peak);
            store_weights(at.weights + r * kRow + k, w);
            total += w;
        }
        store(totals, total);
    }
}

DTG_INLINE void pack_keys(const Element* from, std::int64_t stride, std::int64_t keys,
                      std::int64_t dim, Element* to) {
    for (std::int64_t panel = 0; panel < keys; panel += kPanel, to += kPanel * dim) {
        const std::int64_t count = std::min<std::int64_t>(kPanel, keys - panel);
        if (count < kPanel) std::fill(to, to + kPanel * dim, Element{});
        for (std::int64_t j = 0; j < count; ++j) {
            const Element* row = from + (panel + j) * stride;
            for (std::int64_t d = 0; d < dim; d += kPair) {
                for (int i = 0; i < kPair; ++i) to[d * kPanel + j * kPair + i] = row[d + i];
            }
        }
    }
}

DTG_INLINE void pack_values(const Element* from, std::int64_t stride, std::int64_t keys,
                        std::int64_t dim, Element* to) {
    for (std::int64_t column = 0; column < dim; column += kPanel, to += kPanel * kBlock) {
        const std::int64_t count = std::min<std::int64_t>(kPanel, dim - column);
        for (std::int64_t j = 0; j < keys; ++j) {
            Element* row = to + j / kPair * kPair * kPanel + j % kPair;
            for (std::int64_t d = 0; d < count; ++d) row[d * kPair] = from[j * stride + column + d];
        }
        if (keys % kPair) {  // the last one has no partner
            Element* row = to + keys / kPair * kPair * kPanel + keys % kPair;
            for (std::int64_t d = 0; d < count; ++d) row[d * kPair] = Element{};
        }
    }
}

DTG_INLINE void pack_queries(const Element* from, std::int64_t stride, std::int64_t rows,
                         std::int64_t dim, Element* to) {
    for (int r = 0; r < kRows; ++r) {
        const Element* row = from + r * stride;
        for (std::int64_t d = 0; d < dim; ++d) {
            to[d / kPair * kPair * kRows + r * kPair + d % kPair] = r < rows ? row[d] : Element{};
        }
    }
}

DTG_INLINE void attend_tile(const Scratch& at, std::int64_t tile, std::int64_t keys, std::int64_t dim,
                        float scale) {
    const std::int64_t whole = (keys + kWidth - 1) / kWidth * kWidth;
    std::int64_t key = 0;
    for (; key + kPanel <= whole; key += kPanel) {
        multiply_keys<2>(at.queries, at.keys + key * dim, at.scores + key, dim);
    }
    if (key < whole) multiply_keys<1>(at.queries, at.keys + key * dim, at.scores + key, dim);
    for (int r = 0; r < kRows; ++r) {
        float* row = at.scores + r * kRow;
        std::fill(row + keys, row + whole, -std::numeric_limits<float>::infinity());
    }
    float factor[kRows];
    softmax_rows(at, tile, whole, scale, factor);
    float* sums = at.sums + tile * dim;
    std::int64_t column = 0;
    for (; column + kPanel <= dim; column += kPanel) {
        multiply_values<2>(at.weights, at.values + column * kBlock, factor, sums + column, keys,
                           dim);
    }
    if (column < dim) {
        multiply_values<1>(at.weights, at.values + column * kBlock, factor, sums + column, keys,
                           dim);
    }
}

// Queries `first` to `last` of one head.
void attend(const Head& head, std::int64_t first, std::int64_t last, float scale, void* memory) {
    const std::int64_t dim = head.dim, num = last - first;
    const auto* q = static_cast<const Element*>(head.q);
    const auto* k = static_cast<const Element*>(head.k);
    const auto* v = static_cast<const Element*>(head.v);
    auto* out = static_cast<Element*>(head.out);
    const std::int64_t padded = (num + kRows - 1) / kRows * kRows;
    Carver carver(memory);
    const Scratch at{carver.take<Element>((kBlock + kPanel) * dim),
                     carver.take<Element>((kBlock + kPair) * (dim + kPanel)),
                     carver.take<Element>(kRows * dim),
                     carver.take<Element>(kRows * kRow),
                     carver.take<float>(kRows * kRow),
                     carver.take<float>(padded * dim),
                     carver.take<float>(padded),
                     carver.take<float>(padded * kWidth)};
    std::fill(at.sums, at.sums + padded * dim, 0.0f);
    std::fill(at.totals, at.totals + padded * kWidth, 0.0f);
    std::fill(at.largest, at.largest + padded, std::numeric_limits<float>::lowest());
    for (std::int64_t block = 0; block < head.keys; block += kBlock) {
        const std::int64_t keys = std::min<std::int64_t>(kBlock, head.keys - block);
        pack_keys(k + block * head.k_row, head.k_row, keys, dim, at.keys);
        pack_values(v + block * head.v_row, head.v_row, keys, dim, at.values);
        for (std::int64_t tile = 0; tile < padded; tile += kRows) {
            pack_queries(q + (first + tile) * head.q_row, head.q_row,
                         std::min<std::int64_t>(kRows, num - tile), dim, at.queries);
            attend_tile(at, tile, keys, dim, scale);
        }
    }
    for (std::int64_t row = 0; row < num; ++row) {
        float total = 0.0f;
        for (int lane = 0; lane < kWidth; ++lane) total += at.totals[row * kWidth + lane];
        Element* to = out + (first + row) * head.out_row;
        const float* sums = at.sums + row * dim;
        for (std::int64_t d = 0; d < dim; ++d) to[d] = narrow(sums[d] / total);
    }
}

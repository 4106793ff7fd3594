// Rows of tokens (B, N, D), and what the ops that normalise them have in common.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "dtg/storage.h"

namespace dtg {

struct TokenShape {
    std::int64_t batch, tokens, dim;
    std::int64_t rows() const { return batch * tokens; }
};

// (B, D) fp32, one row a sample; a stride of 0 gives all samples the same one.
struct SampleRows {
    const float* data;
    std::int64_t stride;
    DTG_INLINE const float* at(std::int64_t sample) const { return data + sample * stride; }
};

// Sums in this many lanes, whatever the width of the registers: the order of the additions, and so
// every bit, is that of any other instruction set.
constexpr int kLanes = 64;

template <class Term>
DTG_INLINE float lane_sum(Term term, std::int64_t num) {
    float lanes[kLanes] = {};
    std::int64_t i = 0;
    for (; i + kLanes <= num; i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
    }
    for (int lane = 0; i + lane < num; ++lane) lanes[lane] += term(i + lane);
    for (int width = kLanes / 2; width > 0; width /= 2) {
        for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
}

struct Value {
    const float* row;
    DTG_INLINE float operator()(std::int64_t i) const { return row[i]; }
};

struct SquaredDeviation {
    const float* row;
    float center;
    DTG_INLINE float operator()(std::int64_t i) const {
        return (row[i] - center) * (row[i] - center);
    }
};

// 1 / sqrt(mean of (row - center)^2 + eps).
DTG_INLINE float inverse_deviation(const float* row, float center, std::int64_t dim, float eps) {
    const float sum = lane_sum(SquaredDeviation{row, center}, dim);
    return 1.0f / std::sqrt(sum / static_cast<float>(dim) + eps);
}

// out = LN(row) * (base + scale) + shift, with a base of 1 (modulation) or 0 (an affine norm).
template <class T>
DTG_INLINE void layernorm_row(const float* __restrict row, const float* __restrict scale,
                              const float* __restrict shift, float base, float eps,
                              typename T::Storage* __restrict out, std::int64_t dim) {
    const float mean = lane_sum(Value{row}, dim) / static_cast<float>(dim);
    const float inverse = inverse_deviation(row, mean, dim, eps);
    for (std::int64_t i = 0; i < dim; ++i) {
        out[i] = T::store((row[i] - mean) * inverse * (base + scale[i]) + shift[i]);
    }
}

// Calls work(begin, end, scratch) for ranges of rows, in parallel; scratch holds `held` rows, of which
// all ranges but the last are multiples.
template <class Work>
void for_rows(const TokenShape& shape, int num_threads, std::int64_t held, Work work) {
    constexpr std::int64_t kValues = 1 << 15;  // per parallel task
    const std::int64_t per_task = std::max<std::int64_t>(1, kValues / shape.dim / held) * held;
    const std::int64_t num_tasks = (shape.rows() + per_task - 1) / per_task;
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, num_tasks));
    (void)threads;  // unused where there is no OpenMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t task = 0; task < num_tasks; ++task) {
        std::vector<float> scratch(static_cast<std::size_t>(held * shape.dim));
        const std::int64_t begin = task * per_task;
        work(begin, std::min(begin + per_task, shape.rows()), scratch.data());
    }
}

// One row at a time.
template <class Work>
void for_rows(const TokenShape& shape, int num_threads, Work work) {
    for_rows(shape, num_threads, 1, work);
}

}  // namespace dtg

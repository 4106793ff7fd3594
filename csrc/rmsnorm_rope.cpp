#include "dtg/rmsnorm_rope.h"

namespace dtg {
namespace {

struct Job {
    const void* x;
    const float *weight, *cos, *sin;
    void* out;
    TokenShape shape;
    std::int64_t heads;
    float eps;
};

// One head of one token: the pairs (2 i, 2 i + 1) turned by the token's angles.
template <class T>
DTG_INLINE void rotate(const float* __restrict head, const float* __restrict cos,
                       const float* __restrict sin, typename T::Storage* __restrict out,
                       std::int64_t pairs) {
    for (std::int64_t i = 0; i < pairs; ++i) {
        const float even = head[2 * i], odd = head[2 * i + 1];
        out[2 * i] = T::store(even * cos[i] - odd * sin[i]);
        out[2 * i + 1] = T::store(even * sin[i] + odd * cos[i]);
    }
}

template <class T>
DTG_INLINE void copy(const float* __restrict head, typename T::Storage* __restrict out,
                     std::int64_t dim) {
    for (std::int64_t i = 0; i < dim; ++i) out[i] = T::store(head[i]);
}

template <class T>
DTG_INLINE void norm_rows(const Job& job, std::int64_t begin, std::int64_t end,
                          float* __restrict row) {
    using Storage = typename T::Storage;
    const auto [batch, tokens, dim] = job.shape;
    const std::int64_t head_dim = dim / job.heads, pairs = head_dim / 2;
    for (std::int64_t r = begin; r < end; ++r) {
        const Storage* __restrict x = static_cast<const Storage*>(job.x) + r * dim;
        for (std::int64_t i = 0; i < dim; ++i) row[i] = T::load(x[i]);
        const float inverse = inverse_deviation(row, 0.0f, dim, job.eps);
        const float* __restrict weight = job.weight;
        for (std::int64_t i = 0; i < dim; ++i) row[i] = row[i] * inverse * weight[i];
        const std::int64_t sample = r / tokens, token = r % tokens;
        for (std::int64_t h = 0; h < job.heads; ++h) {
            const std::int64_t place = (sample * job.heads + h) * tokens + token;
            Storage* const out = static_cast<Storage*>(job.out) + place * head_dim;
            const float* const head = row + h * head_dim;
            if (job.cos == nullptr) {
                copy<T>(head, out, head_dim);
            } else {
                rotate<T>(head, job.cos + token * pairs, job.sin + token * pairs, out, pairs);
            }
        }
    }
}

// One plain function per type: target_clones does not apply to templates.
DTG_MULTIVERSION void norm_float32(const Job& job, std::int64_t begin, std::int64_t end,
                                   float* scratch) {
    norm_rows<Float32>(job, begin, end, scratch);
}

DTG_MULTIVERSION void norm_bfloat16(const Job& job, std::int64_t begin, std::int64_t end,
                                    float* scratch) {
    norm_rows<BFloat16>(job, begin, end, scratch);
}

}  // namespace

void rmsnorm_rope(const void* x, const float* weight, const float* cos, const float* sin, void* out,
                  const TokenShape& shape, std::int64_t heads, float eps, Dtype dtype,
                  int num_threads) {
    const Job job{x, weight, cos, sin, out, shape, heads, eps};
    const auto rows = dtype == Dtype::kBFloat16 ? norm_bfloat16 : norm_float32;
    for_rows(shape, num_threads, [&](std::int64_t begin, std::int64_t end, float* scratch) {
        rows(job, begin, end, scratch);
    });
}

}  // namespace dtg

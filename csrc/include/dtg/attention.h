// softmax(scale * q k^T) v, head by head.
#pragma once

#include "dtg/storage.h"

namespace dtg {

// (batch, heads, rows, dim) whose last dimension is contiguous; strides in values.
struct AttentionOperand {
    const void* data;
    std::int64_t batch, head, row;
};

struct AttentionShape {
    std::int64_t batch, heads, queries, keys, dim;
};

// Whether this processor and compiler can: fp32 takes AVX-512, or AVX2 with FMA; bf16 takes
// AVX512-BF16, whose products are exact and whose sums are fp32.
bool attention_supported(Dtype dtype);

// out: (batch, queries, heads, dim) of dtype, contiguous, no part of an input.  scale is above 0,
// dim a multiple of 16, and there is a key.  With bf16 the weights are rounded to it.  The result
// does not depend on num_threads.  Throws std::bad_alloc.
void attention(const AttentionOperand& q, const AttentionOperand& k, const AttentionOperand& v,
               void* out, const AttentionShape& shape, float scale, Dtype dtype, int num_threads);

}  // namespace dtg

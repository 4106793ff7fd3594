// out = gelu_tanh(x + bias), the epilogue of a feed-forward layer's first product.
#pragma once

#include <cstdint>

#include "dtg/storage.h"

namespace dtg {

// x, out: (rows, dim) of dtype (fp32 or bf16); bias: (dim,).  out may not overlap the inputs.  The
// result does not depend on num_threads.
void gelu_bias(const void* x, const float* bias, void* out, std::int64_t rows, std::int64_t dim,
               Dtype dtype, int num_threads);

}  // namespace dtg

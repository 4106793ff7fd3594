// RMSNorm over the full width, rotary embedding of each head, and the layout of attention.
#pragma once

#include "dtg/tokens.h"

namespace dtg {

// x: (B, N, D) of dtype (fp32 or bf16); weight: (D); cos, sin: (N, D / heads / 2), both null for
// the norm alone; out: (B, heads, N, D / heads) of dtype, overlapping nothing.  dim >= 1 is a
// multiple of heads, and D / heads is even where there is a rotation.  The result does not depend
// on num_threads.
void rmsnorm_rope(const void* x, const float* weight, const float* cos, const float* sin, void* out,
                  const TokenShape& shape, std::int64_t heads, float eps, Dtype dtype,
                  int num_threads);

}  // namespace dtg

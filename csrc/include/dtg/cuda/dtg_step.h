// The guided Euler step on a GPU: out = x + dt * (w_cond * v_cond + w_uncond * v_uncond).
#pragma once

#include "dtg/storage.h"

namespace dtg::cuda {

// All addresses are on the current device.  x, out: num fp32 values.  v_cond, v_uncond: num values
// of v_dtype; v_uncond may be null (no term).  table: rows of w_cond, w_uncond, dt; row: the
// address of the number of the row, read by the kernel, or null for the first one.  out may not
// overlap the inputs.  One launch on `stream` (a cudaStream_t), fit to be recorded in a graph.
// Throws std::runtime_error where the launch fails.
void dtg_step(const float* x, const void* v_cond, const void* v_uncond, const float* table,
              const std::int64_t* row, float* out, std::int64_t num, Dtype v_dtype, void* stream);

}  // namespace dtg::cuda

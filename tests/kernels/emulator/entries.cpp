// The CUDA ops under names that ctypes finds.
#include "dtg/cuda/causal_conv3d.h"
#include "dtg/cuda/dtg_step.h"
#include "dtg/cuda/tile_blend.h"

using namespace dtg::cuda;
using dtg::Dtype;

extern "C" {

void step(const float* x, const void* v_cond, const void* v_uncond, const float* table,
          const std::int64_t* row, float* out, std::int64_t num, int dtype) {
    dtg_step(x, v_cond, v_uncond, table, row, out, num, static_cast<Dtype>(dtype), nullptr);
}

void blend(const void* values, const std::int32_t* origins, const float* window_y,
           const float* window_x, float* out, const Blend* shape, int dtype) {
    tile_blend(values, origins, window_y, window_x, out, *shape, static_cast<Dtype>(dtype),
               nullptr);
}

void assemble(const void* past, const void* chunk, void* out, const ConvInput* shape, int dtype) {
    causal_conv3d(past, chunk, out, *shape, static_cast<Dtype>(dtype), nullptr);
}
}

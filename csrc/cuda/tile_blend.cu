#include "dtg/cuda/tile_blend.h"
#include "launch.cuh"

namespace dtg::cuda {
namespace {

// A block has a patch of places in kPlanes planes; which tiles touch the patch is found out once.
constexpr int kColumns = 32, kRows = 8, kPlanes = 8;
constexpr unsigned kWarp = 0xffffffffu;

// The numbers of the tiles that touch the patch at (y, x), in rising order; one warp.
__device__ int list_tiles(const std::int32_t* origins, const Blend& shape, int y, int x, int lane,
                          int* list) {
    int count = 0;
    for (int base = 0; base < shape.num_tiles; base += 32) {
        const int n = base + lane;
        bool touches = false;
        if (n < shape.num_tiles) {
            const int top = origins[2 * n], left = origins[2 * n + 1];
            touches = top < y + kRows && top + shape.tile_height > y && left < x + kColumns &&
                      left + shape.tile_width > x;
        }
        const unsigned found = __ballot_sync(kWarp, touches);
        if (touches) list[count + __popc(found & ((1u << lane) - 1))] = n;
        count += __popc(found);
    }
    return count;
}

template <class V>
__global__ void __launch_bounds__(kColumns* kRows)
    blend_kernel(const typename V::Storage* __restrict__ tiles,
                 const std::int32_t* __restrict__ origins, const float* __restrict__ window_y,
                 const float* __restrict__ window_x, float* __restrict__ out, Blend shape) {
    __shared__ int list[kMaxTiles], num_listed;
    const int x0 = blockIdx.x * kColumns, y0 = blockIdx.y * kRows;
    if (threadIdx.y == 0) {
        const int count = list_tiles(origins, shape, y0, x0, threadIdx.x, list);
        if (threadIdx.x == 0) num_listed = count;
    }
    __syncthreads();

    const int x = x0 + threadIdx.x, y = y0 + threadIdx.y;
    if (x >= shape.width || y >= shape.height) return;
    const std::int64_t plane = std::int64_t{blockIdx.z} * kPlanes;
    const std::int64_t tile_area = std::int64_t{shape.tile_height} * shape.tile_width;
    float sum[kPlanes] = {};
    for (int k = 0; k < num_listed; ++k) {
        const int n = list[k];
        const int row = y - origins[2 * n], column = x - origins[2 * n + 1];
        if (row < 0 || row >= shape.tile_height || column < 0 || column >= shape.tile_width) {
            continue;
        }
        const std::int64_t place = std::int64_t{row} * shape.tile_width + column;
        const float weight = window_y[std::int64_t{n} * shape.tile_height + row] *
                             window_x[std::int64_t{n} * shape.tile_width + column];
        const auto* values = tiles + (n * shape.planes + plane) * tile_area + place;
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) {
            if (plane + p < shape.planes) sum[p] += weight * V::load(values[p * tile_area]);
        }
    }
    const std::int64_t area = std::int64_t{shape.height} * shape.width;
    float* places = out + plane * area + std::int64_t{y} * shape.width + x;
#pragma unroll
    for (int p = 0; p < kPlanes; ++p) {
        if (plane + p < shape.planes) places[p * area] = sum[p];
    }
}

template <class V>
void run(const void* tiles, const std::int32_t* origins, const float* window_y,
         const float* window_x, float* out, const Blend& shape, void* stream) {
    const auto groups = [](std::int64_t count, int size) {
        return static_cast<unsigned>((count + size - 1) / size);
    };
    const dim3 grid(groups(shape.width, kColumns), groups(shape.height, kRows),
                    groups(shape.planes, kPlanes));
    launch("tile_blend", blend_kernel<V>, grid, dim3(kColumns, kRows), stream,
           static_cast<const typename V::Storage*>(tiles), origins, window_y, window_x, out, shape);
}

}  // namespace

void tile_blend(const void* tiles, const std::int32_t* origins, const float* window_y,
                const float* window_x, float* out, const Blend& shape, Dtype dtype, void* stream) {
    if (shape.planes == 0 || shape.height == 0 || shape.width == 0) return;
    const auto blend = dtype == Dtype::kBFloat16  ? run<BFloat16>
                       : dtype == Dtype::kFloat16 ? run<Float16>
                                                  : run<Float32>;
    blend(tiles, origins, window_y, window_x, out, shape, stream);
}

}  // namespace dtg::cuda

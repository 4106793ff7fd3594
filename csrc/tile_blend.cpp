#include "dtg/tile_blend.h"

#include <algorithm>

#include "dtg/multiversion.h"

namespace dtg {
namespace {

struct Job {
    const void* values;
    const Tiles& tiles;
    const float *window_y, *window_x;
    float* out;
};

// One row of the state: it stays in the cache while the tiles are added.
template <class T>
DTG_INLINE void blend_row(const Job& job, std::int64_t row) {
    const Tiles& tiles = job.tiles;
    const std::int64_t plane = row / tiles.height, y = row % tiles.height;
    const auto* values = static_cast<const typename T::Storage*>(job.values);
    float* __restrict out = job.out + row * tiles.width;
    std::fill(out, out + tiles.width, 0.0f);
    for (std::int64_t n = 0; n < tiles.num; ++n) {
        const std::int64_t inner = y - tiles.y(n), x = tiles.x(n);
        if (inner < 0 || inner >= tiles.tile_height) continue;
        const float weight = job.window_y[n * tiles.tile_height + inner];
        const float* across = job.window_x + n * tiles.tile_width;
        const auto* tile =
            values + ((n * tiles.planes + plane) * tiles.tile_height + inner) * tiles.tile_width;
        const std::int64_t begin = std::max<std::int64_t>(0, -x);
        const std::int64_t end = std::min(tiles.tile_width, tiles.width - x);
        for (std::int64_t i = begin; i < end; ++i) {
            out[x + i] += T::load(tile[i]) * (weight * across[i]);
        }
    }
}

// One plain function per type: target_clones does not apply to templates.
DTG_MULTIVERSION void blend_float32(const Job& job, std::int64_t row) {
    blend_row<Float32>(job, row);
}

DTG_MULTIVERSION void blend_bfloat16(const Job& job, std::int64_t row) {
    blend_row<BFloat16>(job, row);
}

}  // namespace

void tile_blend(const void* values, const Tiles& tiles, const float* window_y,
                const float* window_x, float* out, Dtype dtype, int num_threads) {
    const Job job{values, tiles, window_y, window_x, out};
    const auto blend = dtype == Dtype::kBFloat16 ? blend_bfloat16 : blend_float32;
    const std::int64_t all = tiles.planes * tiles.height;
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, all));
    (void)threads;  // unused where there is no OpenMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t row = 0; row < all; ++row) blend(job, row);
}

}  // namespace dtg

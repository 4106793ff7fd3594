#include "dtg/tile_gather.h"

#include <algorithm>
#include <cstring>

namespace dtg {

void tile_gather(const float* x, const Tiles& tiles, std::int64_t repeat, float* out,
                 int num_threads) {
    const std::int64_t size = tiles.tile_height * tiles.tile_width;
    const std::int64_t all = tiles.num * tiles.planes;
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, all));
    (void)threads;  // unused where there is no OpenMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t i = 0; i < all; ++i) {
        const std::int64_t n = i / tiles.planes, plane = i % tiles.planes;
        const float* from = x + (plane * tiles.height + tiles.y(n)) * tiles.width + tiles.x(n);
        float* const to = out + i * size;
        for (std::int64_t row = 0; row < tiles.tile_height; ++row) {
            std::memcpy(to + row * tiles.tile_width, from + row * tiles.width,
                        static_cast<std::size_t>(tiles.tile_width) * sizeof(float));
        }
        for (std::int64_t copy = 1; copy < repeat; ++copy) {
            std::memcpy(to + copy * all * size, to, static_cast<std::size_t>(size) * sizeof(float));
        }
    }
}

}  // namespace dtg

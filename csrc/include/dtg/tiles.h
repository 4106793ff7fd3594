// Tiles (N, C, T, h, w) cut out of a state (1, C, T, H, W), and blended into one.
#pragma once

#include <cstdint>

namespace dtg {

// `planes` is C * T.  Tile n begins at row origins[2 n] and column origins[2 n + 1] of the state.
struct Tiles {
    std::int64_t num, planes, tile_height, tile_width, height, width;
    const std::int32_t* origins;
    std::int64_t y(std::int64_t n) const { return origins[2 * n]; }
    std::int64_t x(std::int64_t n) const { return origins[2 * n + 1]; }
};

}  // namespace dtg

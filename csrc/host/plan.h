// How a clip is cut, as engine/plan.py does it for a backbone that is compiled for some shapes.
#pragma once

#include <vector>

#include "dtg/dtg.h"
#include "facts.h"
#include "tiling.h"

namespace dtg::host {

struct Plan {
    Bucket bucket;
    ChunkGrid grid;
    std::int64_t height, width;  // of what the backbone sees: the frame, continued by reflection
    std::vector<Tile> tiles;     // in pixels
    std::int64_t tile_batch;
};

// `codec_height` and `codec_width` are those of the codec's tile, 0 where it takes any size.  Config
// error where settings contradict each other, or what the backbone is compiled for.
Plan make_plan(const dtg_settings& settings, const BackboneFacts& facts, std::int64_t height,
               std::int64_t width, std::int64_t codec_height, std::int64_t codec_width);

}  // namespace dtg::host

#include "plan.h"

#include <algorithm>
#include <string>

#include "error.h"

namespace dtg::host {
namespace {

std::int64_t round_frames(std::int64_t frames, const BackboneFacts& facts) {
    const std::int64_t above = std::max<std::int64_t>(0, frames - facts.frame_offset);
    return round_up(above, facts.frame_multiple) + facts.frame_offset;
}

// The bucket that is asked for by tile and chunk, else the preferred one.
const Bucket& choose(const dtg_settings& settings, const BackboneFacts& facts, std::int64_t height,
                     std::int64_t width) {
    const std::int64_t frames = settings.chunk ? round_frames(settings.chunk, facts) : 0;
    const bool any = settings.tile_width == 0 && settings.tile_height == 0;
    const auto asked = [&](int side, std::int64_t whole) {
        return side ? round_up(side, facts.pixel_multiple) : whole;
    };
    const std::int64_t h = asked(settings.tile_height, height);
    const std::int64_t w = asked(settings.tile_width, width);
    for (const bool clipped : {false, true}) {
        const std::int64_t high = clipped ? std::min(h, height) : h;
        const std::int64_t wide = clipped ? std::min(w, width) : w;
        for (const Bucket& bucket : facts.buckets) {
            const bool fits = any || (bucket.height == high && bucket.width == wide);
            if (fits && (frames == 0 || bucket.frames == frames)) return bucket;
        }
    }
    config_error("tile is " + std::to_string(settings.tile_width) + "x" +
                 std::to_string(settings.tile_height) + " and chunk is " +
                 std::to_string(settings.chunk) + ": the bundle has engines for " +
                 listed(facts.buckets));
}

ChunkGrid grid_of(const dtg_settings& settings, const BackboneFacts& facts, std::int64_t length) {
    if (settings.overlap < 0) {
        const std::int64_t room = length / 2 - facts.frame_offset;
        const std::int64_t fits =
            room < 0 ? 0 : room / facts.frame_multiple * facts.frame_multiple + facts.frame_offset;
        return {length, std::max<std::int64_t>(0, std::min(facts.overlap, fits))};
    }
    const std::int64_t overlap = round_frames(settings.overlap, facts);
    if (2 * overlap > length) {
        config_error("overlap is " + std::to_string(settings.overlap) + ": rounded up to " +
                     std::to_string(overlap) + " it must be at most half of the chunk (" +
                     std::to_string(length) + ")");
    }
    return {length, overlap};
}

std::int64_t tile_overlap_of(const dtg_settings& settings, const BackboneFacts& facts,
                             const Bucket& bucket, std::int64_t height, std::int64_t width) {
    if (settings.tile_overlap < 0) {
        const std::int64_t half = std::min(bucket.height, bucket.width) / 2;
        return std::min(facts.tile_overlap, half / facts.pixel_multiple * facts.pixel_multiple);
    }
    for (const auto& [side, size] :
         {std::pair{bucket.width, width}, std::pair{bucket.height, height}}) {
        if (side < size && settings.tile_overlap >= side) {
            config_error("tile_overlap is " + std::to_string(settings.tile_overlap) +
                         ": it must be below the tile's side (" + std::to_string(side) + ")");
        }
    }
    return settings.tile_overlap;
}

}  // namespace

Plan make_plan(const dtg_settings& settings, const BackboneFacts& facts, std::int64_t height,
               std::int64_t width, std::int64_t codec_height, std::int64_t codec_width) {
    const std::int64_t multiple = facts.pixel_multiple;
    const std::int64_t whole_height = round_up(height, multiple);
    const std::int64_t whole_width = round_up(width, multiple);
    Plan plan;
    plan.bucket = choose(settings, facts, whole_height, whole_width);
    const Bucket& bucket = plan.bucket;
    plan.height = round_up(std::max({whole_height, bucket.height, codec_height}), multiple);
    plan.width = round_up(std::max({whole_width, bucket.width, codec_width}), multiple);
    plan.grid = grid_of(settings, facts, bucket.frames);
    const std::int64_t overlap = tile_overlap_of(settings, facts, bucket, plan.height, plan.width);
    plan.tiles =
        tiles_of(plan.height, plan.width, bucket.height, bucket.width, overlap, multiple);
    const std::int64_t largest = std::max<std::int64_t>(1, bucket.batches.back() / 2);
    plan.tile_batch = settings.tile_batch ? settings.tile_batch : largest;
    return plan;
}

}  // namespace dtg::host

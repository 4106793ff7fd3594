// What is known of a bundle's models, see engine/backbones/base.py, codecs/base.py and sr/base.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json.h"

namespace dtg::host {

struct Bucket {
    std::int64_t frames, height, width;
    std::vector<std::int64_t> batches;  // samples of one call, in rising order
};

struct CodecFacts {
    std::int64_t channels, frames, pixels;
    bool causal;
    std::int64_t latent_frames(std::int64_t num_frames) const {
        return causal ? (num_frames - 1) / frames + 1 : num_frames / frames;
    }
};

struct BackboneFacts {
    std::string name, prompt, negative_prompt;
    CodecFacts codec;
    std::int64_t frame_multiple, frame_offset, pixel_multiple;  // what chunks and tiles obey
    std::int64_t overlap, tile_overlap;
    std::vector<double> experts;  // the times from which on each is used
    std::vector<Bucket> buckets;
};

struct SrFacts {
    std::int64_t scale, halo;
};

CodecFacts codec_facts(const Json& facts);
BackboneFacts backbone_facts(const Json& facts);
SrFacts sr_facts(const Json& facts);

// "64x48 pixels of 16 frames, ...".
std::string listed(const std::vector<Bucket>& buckets);

}  // namespace dtg::host

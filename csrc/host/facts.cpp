#include "facts.h"

#include <algorithm>

#include "error.h"

namespace dtg::host {

CodecFacts codec_facts(const Json& facts) {
    return {facts.at("channels").integer(), facts.at("frames").integer(),
            facts.at("pixels").integer(), facts.at("causal").boolean()};
}

BackboneFacts backbone_facts(const Json& facts) {
    BackboneFacts made;
    made.name = facts.at("name").string();
    made.prompt = facts.at("prompt").string();
    made.negative_prompt = facts.at("negative_prompt").string();
    made.codec = codec_facts(facts.at("codec"));
    const auto patch = facts.at("patch").integers();  // (t, h, w)
    if (patch.size() != 3) engine_error("the patch of a backbone has three sides");
    made.frame_multiple = made.codec.frames * patch[0];
    made.frame_offset = made.codec.causal;
    made.pixel_multiple = made.codec.pixels * std::max(patch[1], patch[2]);
    made.overlap = facts.at("overlap").integer();
    made.tile_overlap = facts.at("tile_overlap").integer();
    made.experts = facts.at("experts").numbers();
    for (const Json& bucket : facts.at("buckets").array()) {
        made.buckets.push_back({bucket.at("frames").integer(), bucket.at("height").integer(),
                                bucket.at("width").integer(), bucket.at("batches").integers()});
        if (made.buckets.back().batches.empty()) engine_error("a bucket has no batches");
    }
    if (made.buckets.empty()) engine_error("the bundle's backbone is compiled for no shape");
    return made;
}

SrFacts sr_facts(const Json& facts) {
    return {facts.at("scale").integer(), facts.at("halo").integer()};
}

std::string listed(const std::vector<Bucket>& buckets) {
    std::string text;
    for (const Bucket& b : buckets) {
        text += (text.empty() ? "" : ", ") + std::to_string(b.width) + "x" +
                std::to_string(b.height) + " pixels of " + std::to_string(b.frames) + " frames";
    }
    return text;
}

}  // namespace dtg::host

#include "upscaler.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "error.h"

namespace dtg::host {
namespace {

// Sides of a tile as engine/sr/frames.py has them.
constexpr std::int64_t kCpuTile = 256, kCudaTile = 1024;

SrFacts facts_in(const Bundle& bundle) {
    const Json* model = bundle.model("sr");
    if (!model) config_error(bundle.folder() + " holds no super-resolution: upscale is not possible");
    return sr_facts(model->at("facts"));
}

// 0 .. size in the fewest nearly equal parts of at most `limit`.
std::vector<std::pair<std::int64_t, std::int64_t>> split(std::int64_t size, std::int64_t limit) {
    const std::int64_t parts = (size + limit - 1) / limit;
    std::vector<std::pair<std::int64_t, std::int64_t>> made;
    for (std::int64_t i = 0; i < parts; ++i) {
        made.emplace_back(i * size / parts, (i + 1) * size / parts);
    }
    return made;
}

}  // namespace

Upscaler::Upscaler(Bundle& bundle)
    : bundle_(bundle),
      facts_(facts_in(bundle)),
      tile_(bundle.manifest().device == "cpu" ? kCpuTile : kCudaTile) {}

Tensor Upscaler::operator()(const Tensor& frame) {
    const std::int64_t height = frame.size(1), width = frame.size(2), s = facts_.scale;
    Tensor made(Type::kFloat32, {3, s * height, s * width});
    for (const auto& [y0, y1] : split(height, tile_)) {
        for (const auto& [x0, x1] : split(width, tile_)) {
            // What is computed has `halo` pixels of its surroundings, and the frame's true border.
            const std::int64_t top = std::max<std::int64_t>(y0 - facts_.halo, 0);
            const std::int64_t left = std::max<std::int64_t>(x0 - facts_.halo, 0);
            const std::int64_t bottom = std::min(y1 + facts_.halo, height);
            const std::int64_t right = std::min(x1 + facts_.halo, width);
            Tensor part(Type::kFloat32, {1, 3, bottom - top, right - left});
            float* to = part.floats();
            for (std::int64_t c = 0; c < 3; ++c) {
                for (std::int64_t y = top; y < bottom; ++y) {
                    const float* row = frame.floats() + (c * height + y) * width;
                    to = std::copy(row + left, row + right, to);
                }
            }
            const Tensors outputs = bundle_.engine("upscale")({{"frames", &part}});
            const Tensor& enlarged = outputs.at("upscaled");
            for (std::int64_t c = 0; c < 3; ++c) {
                for (std::int64_t y = s * y0; y < s * y1; ++y) {
                    const float* row = enlarged.floats() +
                                       (c * enlarged.size(2) + y - s * top) * enlarged.size(3) -
                                       s * left;
                    std::copy(row + s * x0, row + s * x1,
                              made.floats() + (c * s * height + y) * s * width + s * x0);
                }
            }
        }
    }
    return made;
}

}  // namespace dtg::host

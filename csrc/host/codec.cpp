#include "codec.h"

#include <algorithm>
#include <string>
#include <vector>

#include "error.h"
#include "tiling.h"

namespace dtg::host {
namespace {

constexpr std::int64_t kShared = 4;  // neighbouring tiles share one part in so many of a tile

struct Size {
    std::int64_t height, width;
};

// Rows `count` x `size` of planes of x, cut at (y, x0).
void crop(const float* x, std::int64_t planes, Size whole, std::int64_t y, std::int64_t x0,
          Size part, float* out) {
    for (std::int64_t plane = 0; plane < planes; ++plane) {
        for (std::int64_t row = 0; row < part.height; ++row) {
            const float* from = x + (plane * whole.height + y + row) * whole.width + x0;
            out = std::copy(from, from + part.width, out);
        }
    }
}

float unit(float value) { return std::min(std::max(value, 0.0f), 1.0f); }

// The state of backbones on pixels: a change of range and layout, nothing else.
class PixelCodec : public Codec {
  public:
    Tensor encode(const Tensor& frames) override {
        Tensor z = transposed(frames, frames.size(1), frames.size(0));
        for (float* v = z.floats(); v != z.floats() + z.count(); ++v) *v = *v * 2 - 1;
        return z;
    }

    Tensor decode(const Tensor& z) override {
        Tensor frames = transposed(z, z.size(1), z.size(0));
        for (float* v = frames.floats(); v != frames.floats() + frames.count(); ++v) {
            *v = unit((*v + 1) / 2);
        }
        return frames;
    }

  private:
    // (b, a, H, W) to (a, b, H, W).
    static Tensor transposed(const Tensor& x, std::int64_t a, std::int64_t b) {
        Tensor made(Type::kFloat32, {a, b, x.size(2), x.size(3)});
        const std::int64_t plane = x.size(2) * x.size(3);
        float* to = made.floats();
        for (std::int64_t i = 0; i < a; ++i) {
            for (std::int64_t j = 0; j < b; ++j) {
                const float* from = x.floats() + (j * a + i) * plane;
                to = std::copy(from, from + plane, to);
            }
        }
        return made;
    }
};

// Compiled encoders and decoders on tiles of one size, with what layers remember of the slices
// before.
class EngineVae {
  public:
    EngineVae(Bundle& bundle, Size size)
        : bundle_(bundle),
          size_(std::to_string(size.height) + "x" + std::to_string(size.width)) {}

    // The next slice of a stream; a new one begins with an empty memory.
    Tensor encode(const Tensor& pixels, Tensors& memory) {
        return run("encode", "pixels", "z", pixels, memory);
    }
    Tensor decode(const Tensor& z, Tensors& memory) {
        return run("decode", "z", "pixels", z, memory);
    }

  private:
    Tensor run(const std::string& way, const char* x_name, const char* y_name, const Tensor& x,
               Tensors& memory) {
        Inputs inputs = {{x_name, &x}};
        for (const auto& [name, cache] : memory) inputs[name] = &cache;
        const std::string place = memory.empty() ? "_first." : "_next.";
        Tensors outputs = bundle_.engine(way + place + size_)(inputs);
        Tensor y = std::move(outputs.at(y_name));
        outputs.erase(y_name);
        memory.clear();
        for (auto& [name, cache] : outputs) {  // cache_i of a slice is past_i of the one after it
            memory["past" + name.substr(name.find('_'))] = std::move(cache);
        }
        return y;
    }

    Bundle& bundle_;
    const std::string size_;
};

// The Wan VAE: normalised latents, slices in time, tiles in space.
class WanCodec : public Codec {
  public:
    WanCodec(Bundle& bundle, const Json& model, Size tile)
        : facts_(codec_facts(model.at("facts"))), tile_(tile), vae_(bundle, tile) {
        for (const double v : model.at("config").at("mean").numbers()) {
            mean_.push_back(static_cast<float>(v));
        }
        for (const double v : model.at("config").at("std").numbers()) {
            std_.push_back(static_cast<float>(v));
        }
        const auto channels = static_cast<std::size_t>(facts_.channels);
        if (mean_.size() != channels || std_.size() != channels) {
            engine_error("the codec has not the statistics of its latents");
        }
    }

    std::pair<std::int64_t, std::int64_t> tile() const override {
        return {tile_.height, tile_.width};
    }

    Tensor encode(const Tensor& frames) override {
        const std::int64_t cell = facts_.pixels, group = facts_.frames, count = frames.size(0);
        const Size pixels = {frames.size(2), frames.size(3)};
        const Size cells = {pixels.height / cell, pixels.width / cell};
        const std::int64_t slices = facts_.latent_frames(count);
        Tensor z = Tensor::zeros({facts_.channels, slices, cells.height, cells.width});
        const Windowed grid = windows(cells, 1);
        for (std::size_t n = 0; n < grid.tiles.size(); ++n) {
            const Tile& tile = grid.tiles[n];
            Tensors memory;
            for (std::int64_t index = 0; index < slices; ++index) {
                const std::int64_t start = std::max<std::int64_t>(0, 1 + group * (index - 1));
                const std::int64_t stop = 1 + group * index;
                Tensor part(Type::kFloat32, {stop - start, 3, tile_.height, tile_.width});
                const float* from = frames.floats() + start * 3 * pixels.height * pixels.width;
                crop(from, 3 * (stop - start), pixels, tile.y * cell, tile.x * cell, tile_,
                     part.floats());
                float* values = part.floats();
                for (std::int64_t i = 0; i < part.count(); ++i) values[i] = values[i] * 2 - 1;
                const Tensor e = vae_.encode(part, memory);
                for (std::int64_t c = 0; c < facts_.channels; ++c) {
                    float* plane = z.floats() + (c * slices + index) * cells.height * cells.width;
                    add(grid, n, 1, e.floats() + c * tile.height * tile.width, plane, cells);
                }
            }
        }
        const std::int64_t volume = slices * cells.height * cells.width;
        for (std::int64_t i = 0; i < z.count(); ++i) {
            const auto c = static_cast<std::size_t>(i / volume);
            z.floats()[i] = (z.floats()[i] - mean_[c]) / std_[c];
        }
        return z;
    }

    Tensor decode(const Tensor& z) override {
        const std::int64_t cell = facts_.pixels, slices = z.size(1);
        const Size cells = {z.size(2), z.size(3)};
        const Size pixels = {cells.height * cell, cells.width * cell};
        Tensor frames = Tensor::zeros({1 + facts_.frames * (slices - 1), 3, pixels.height,
                                       pixels.width});
        const Windowed grid = windows(cells, cell);
        for (std::size_t n = 0; n < grid.tiles.size(); ++n) {
            const Tile& tile = grid.tiles[n];
            Tensors memory;
            std::int64_t done = 0;
            for (std::int64_t index = 0; index < slices; ++index) {
                const Tensor part = vae_.decode(latent(z, index, tile), memory);
                const std::int64_t area = tile_.height * tile_.width;
                for (std::int64_t i = 0; i < part.size(0) * 3; ++i) {
                    float* plane = frames.floats() + (3 * done + i) * pixels.height * pixels.width;
                    add(grid, n, cell, part.floats() + i * area, plane, pixels);
                }
                done += part.size(0);
            }
        }
        for (float* v = frames.floats(); v != frames.floats() + frames.count(); ++v) {
            *v = unit((*v + 1) / 2);
        }
        return frames;
    }

  private:
    // Tiles in latent cells, and their windows in what comes out.
    struct Windowed {
        std::vector<Tile> tiles;
        Windows windows;
    };

    Windowed windows(Size cells, std::int64_t scale) const {
        const std::int64_t high = tile_.height / facts_.pixels, wide = tile_.width / facts_.pixels;
        Windowed made;
        made.tiles = tiles_of(cells.height, cells.width, high, wide,
                              std::min(high, wide) / kShared, 1);
        std::vector<Tile> results;
        for (const Tile& t : made.tiles) {
            results.push_back({scale * t.y, scale * t.x, scale * t.height, scale * t.width});
        }
        made.windows = windows_of(results, scale * cells.height, scale * cells.width);
        return made;
    }

    // A plane of tile `n`, times its window, added to its place in a plane of the whole.
    static void add(const Windowed& grid, std::size_t n, std::int64_t scale, const float* part,
                    float* whole, Size size) {
        const Tile& tile = grid.tiles[n];
        const std::int64_t height = scale * tile.height, width = scale * tile.width;
        const float* window_y = grid.windows.y.data() + static_cast<std::int64_t>(n) * height;
        const float* window_x = grid.windows.x.data() + static_cast<std::int64_t>(n) * width;
        for (std::int64_t y = 0; y < height; ++y) {
            float* to = whole + (scale * tile.y + y) * size.width + scale * tile.x;
            for (std::int64_t x = 0; x < width; ++x) {
                to[x] += part[y * width + x] * (window_y[y] * window_x[x]);
            }
        }
    }

    // Frame `index` of a tile of z, as the decoder takes it: not normalised.
    Tensor latent(const Tensor& z, std::int64_t index, const Tile& tile) const {
        Tensor e(Type::kFloat32, {1, facts_.channels, tile.height, tile.width});
        const std::int64_t area = z.size(2) * z.size(3), part = tile.height * tile.width;
        for (std::int64_t c = 0; c < facts_.channels; ++c) {
            float* to = e.floats() + c * part;
            crop(z.floats() + (c * z.size(1) + index) * area, 1, {z.size(2), z.size(3)}, tile.y,
                 tile.x, {tile.height, tile.width}, to);
            const auto k = static_cast<std::size_t>(c);
            for (std::int64_t i = 0; i < part; ++i) to[i] = to[i] * std_[k] + mean_[k];
        }
        return e;
    }

    const CodecFacts facts_;
    const Size tile_;
    EngineVae vae_;
    std::vector<float> mean_, std_;
};

// The tiny codec, for previews: it takes the whole frame, and latents as they are.
class TinyCodec : public Codec {
  public:
    TinyCodec(Bundle& bundle, const Json& model, Size tile)
        : facts_(codec_facts(model.at("facts"))), tile_(tile), vae_(bundle, tile) {}

    std::pair<std::int64_t, std::int64_t> tile() const override {
        return {tile_.height, tile_.width};
    }

    Tensor encode(const Tensor& frames) override {
        const std::int64_t count = frames.size(0), group = facts_.frames;
        const std::int64_t frame = frames.count() / count;
        const std::int64_t slices = facts_.latent_frames(count);
        const std::int64_t h = frames.size(2) / facts_.pixels, w = frames.size(3) / facts_.pixels;
        Tensor z(Type::kFloat32, {facts_.channels, slices, h, w});
        Tensors memory;
        for (std::int64_t index = 0; index < slices; ++index) {
            Tensor part(Type::kFloat32, {group, 3, frames.size(2), frames.size(3)});
            for (std::int64_t i = 0; i < group; ++i) {  // continued by the clip's last frame
                const std::int64_t source = std::min(index * group + i, count - 1);
                const float* from = frames.floats() + source * frame;
                std::copy(from, from + frame, part.floats() + i * frame);
            }
            const Tensor e = vae_.encode(part, memory);
            for (std::int64_t c = 0; c < facts_.channels; ++c) {
                const float* from = e.floats() + c * h * w;
                std::copy(from, from + h * w, z.floats() + (c * slices + index) * h * w);
            }
        }
        return z;
    }

    Tensor decode(const Tensor& z) override {
        const std::int64_t slices = z.size(1), area = z.size(2) * z.size(3);
        Tensor frames(Type::kFloat32, {1 + facts_.frames * (slices - 1), 3,
                                       z.size(2) * facts_.pixels, z.size(3) * facts_.pixels});
        Tensors memory;
        float* to = frames.floats();
        for (std::int64_t index = 0; index < slices; ++index) {
            Tensor e(Type::kFloat32, {1, facts_.channels, z.size(2), z.size(3)});
            for (std::int64_t c = 0; c < facts_.channels; ++c) {
                const float* from = z.floats() + (c * slices + index) * area;
                std::copy(from, from + area, e.floats() + c * area);
            }
            const Tensor part = vae_.decode(e, memory);
            const std::int64_t frame = part.count() / part.size(0);
            const float* first = part.floats() + (index ? 0 : (part.size(0) - 1) * frame);
            for (const float* v = first; v != part.floats() + part.count(); ++v) *to++ = unit(*v);
        }
        return frames;
    }

  private:
    const CodecFacts facts_;
    const Size tile_;
    EngineVae vae_;
};

}  // namespace

std::unique_ptr<Codec> codec_of(Bundle& bundle) {
    const Json* model = bundle.model("codec");
    if (!model) engine_error(bundle.folder() + " holds a backbone, but no codec");
    const std::string& kind = model->at("kind").string();
    if (kind == "pixels") return std::make_unique<PixelCodec>();
    const auto tile = model->at("tile").integers();  // (width, height)
    if (tile.size() != 2) engine_error("the tile of a codec has two sides");
    const Size size = {tile[1], tile[0]};
    if (kind == "wan") return std::make_unique<WanCodec>(bundle, *model, size);
    if (kind == "tiny") return std::make_unique<TinyCodec>(bundle, *model, size);
    engine_error("the bundle's codec is of the kind " + kind + ": it is not known");
}

}  // namespace dtg::host

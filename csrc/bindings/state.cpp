// Glue of the ops on the state of the sampler: steps, noise, tiles and the block transform.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "arguments.h"
#include "dtg/dtg_step.h"
#include "dtg/gaussian_noise.h"
#include "dtg/patch_codec.h"
#include "dtg/tile_blend.h"
#include "dtg/tile_gather.h"

namespace py = pybind11;

namespace {

using dtg::check_threads;
using dtg::pointer;
using dtg::require;
using dtg::Rows;
using dtg::sample_rows;

void step(std::uintptr_t x, std::uintptr_t v_cond, std::uintptr_t v_uncond, std::uintptr_t weights,
          std::uintptr_t out, std::int64_t num, int v_dtype, int num_threads) {
    require(num >= 0, "num must not be negative, got " + std::to_string(num));
    require(weights, "weights must not be null");
    require(num == 0 || (x && v_cond && out), "x, v_cond and out must not be null");
    require(v_dtype >= 0 && v_dtype <= 2,
            "v_dtype must be 0 (fp32), 1 (bf16) or 2 (fp16), got " + std::to_string(v_dtype));
    check_threads(num_threads);
    py::gil_scoped_release release;
    dtg::dtg_step(pointer<const float>(x), pointer<const void>(v_cond),
                  pointer<const void>(v_uncond), pointer<const float>(weights), pointer<float>(out),
                  num, static_cast<dtg::Dtype>(v_dtype), num_threads);
}

void noise(std::uint64_t seed, std::int64_t start_frame, std::int64_t num_frames,
           std::int64_t channels, std::int64_t height, std::int64_t width, std::int64_t y0,
           std::int64_t x0, std::uintptr_t out, int num_threads) {
    require(num_frames >= 0 && channels >= 0 && height >= 0 && width >= 0,
            "num_frames, channels, height and width must not be negative");
    require(num_frames * channels * height * width == 0 || out, "out must not be null");
    check_threads(num_threads);
    py::gil_scoped_release release;
    dtg::gaussian_noise(seed, {start_frame, num_frames, channels, height, width, y0, x0},
                        pointer<float>(out), num_threads);
}

using Triple = std::array<std::int64_t, 3>;

// Of x (B, 3, T, H, W) in pixels; `phase` is taken modulo the size.
dtg::PatchShape patches(std::int64_t batch, const Triple& size, const Triple& phase,
                        std::initializer_list<std::uintptr_t> addresses, int num_threads) {
    const auto [frames, height, width] = size;
    require(batch >= 0 && frames >= 1 && height >= 1 && width >= 1 && frames % 2 == 0 &&
                height % 8 == 0 && width % 8 == 0,
            "batch must not be negative, frames, height and width multiples of 2, 8 and 8");
    for (const std::uintptr_t address : addresses) {
        require(batch == 0 || address, "no address but that of an optional may be null");
    }
    check_threads(num_threads);
    dtg::PatchShape shape{batch, frames, height, width, {}};
    for (std::size_t i = 0; i < 3; ++i) {
        shape.phase[i] = (phase[i] % size[i] + size[i]) % size[i];
    }
    return shape;
}

void encode(std::uintptr_t x, const Rows& shift, const Rows& scale, std::uintptr_t z,
            std::int64_t batch, const Triple& size, const Triple& phase, int num_threads) {
    const auto shape = patches(batch, size, phase, {x, z}, num_threads);
    require(!shift.first == !scale.first,
            "shift and scale are both given or both null");
    py::gil_scoped_release release;
    dtg::patch_encode(pointer<const float>(x), sample_rows(shift), sample_rows(scale),
                      pointer<float>(z), shape, num_threads);
}

void decode(std::uintptr_t z, std::uintptr_t other, const Rows& weights, std::uintptr_t x,
            std::int64_t batch, const Triple& size, const Triple& phase, int num_threads) {
    const auto shape = patches(batch, size, phase, {z, x}, num_threads);
    require(batch == 0 || !other == !weights.first,
            "other and weights are both given or both null");
    py::gil_scoped_release release;
    dtg::patch_decode(pointer<const float>(z), pointer<const float>(other), sample_rows(weights),
                      pointer<float>(x), shape, num_threads);
}

using Size = std::pair<std::int64_t, std::int64_t>;

// `shape` is (N, C T, h, w), `size` the (H, W) of the state.
using TileShape = std::array<std::int64_t, 4>;

dtg::Tiles tiles_of(const TileShape& shape, const Size& size, std::uintptr_t origins,
                    int num_threads) {
    require(*std::min_element(shape.begin(), shape.end()) >= 0 &&
                std::min(size.first, size.second) >= 0,
            "shape and size must not be negative");
    require(shape[0] == 0 || origins, "origins must not be null");
    check_threads(num_threads);
    return {shape[0],   shape[1],    shape[2], shape[3],
            size.first, size.second, pointer<const std::int32_t>(origins)};
}

void gather(std::uintptr_t x, std::uintptr_t origins, std::uintptr_t out, const TileShape& shape,
            const Size& size, std::int64_t repeat, int num_threads) {
    const auto tiles = tiles_of(shape, size, origins, num_threads);
    const bool empty = tiles.num * tiles.planes * tiles.tile_height * tiles.tile_width == 0;
    require(repeat >= 1, "repeat must be at least 1, got " + std::to_string(repeat));
    require(empty || (x && out), "x and out must not be null");
    for (std::int64_t n = 0; n < tiles.num; ++n) {
        require(tiles.y(n) >= 0 && tiles.y(n) + tiles.tile_height <= tiles.height &&
                    tiles.x(n) >= 0 && tiles.x(n) + tiles.tile_width <= tiles.width,
                "tile " + std::to_string(n) + " is not within the state");
    }
    if (empty) return;
    py::gil_scoped_release release;
    dtg::tile_gather(pointer<const float>(x), tiles, repeat, pointer<float>(out), num_threads);
}

void blend(std::uintptr_t values, std::uintptr_t origins, std::uintptr_t window_y,
           std::uintptr_t window_x, std::uintptr_t out, const TileShape& shape, const Size& size,
           int dtype, int num_threads) {
    const auto tiles = tiles_of(shape, size, origins, num_threads);
    const bool empty = tiles.num * tiles.planes * tiles.tile_height * tiles.tile_width == 0;
    require(empty || (values && window_y && window_x),
            "values, window_y and window_x must not be null");
    require(tiles.planes * tiles.height * tiles.width == 0 || out, "out must not be null");
    require(dtype == 0 || dtype == 1,
            "dtype must be 0 (fp32) or 1 (bf16), got " + std::to_string(dtype));
    py::gil_scoped_release release;
    dtg::tile_blend(pointer<const void>(values), tiles, pointer<const float>(window_y),
                    pointer<const float>(window_x), pointer<float>(out),
                    static_cast<dtg::Dtype>(dtype), num_threads);
}

}  // namespace

void bind_state(py::module_& module) {
    module.def("dtg_step", &step, py::arg("x"), py::arg("v_cond"), py::arg("v_uncond"),
               py::arg("weights"), py::arg("out"), py::arg("num"), py::arg("v_dtype"),
               py::arg("num_threads"));
    module.def("gaussian_noise", &noise, py::arg("seed"), py::arg("start_frame"),
               py::arg("num_frames"), py::arg("channels"), py::arg("height"), py::arg("width"),
               py::arg("y0"), py::arg("x0"), py::arg("out"), py::arg("num_threads"));
    module.def("patch_encode", &encode, py::arg("x"), py::arg("shift"), py::arg("scale"),
               py::arg("z"), py::arg("batch"), py::arg("size"), py::arg("phase"),
               py::arg("num_threads"));
    module.def("patch_decode", &decode, py::arg("z"), py::arg("other"), py::arg("weights"),
               py::arg("x"), py::arg("batch"), py::arg("size"), py::arg("phase"),
               py::arg("num_threads"));
    module.def("tile_gather", &gather, py::arg("x"), py::arg("origins"), py::arg("out"),
               py::arg("shape"), py::arg("size"), py::arg("repeat"), py::arg("num_threads"));
    module.def("tile_blend", &blend, py::arg("values"), py::arg("origins"), py::arg("window_y"),
               py::arg("window_x"), py::arg("out"), py::arg("shape"), py::arg("size"),
               py::arg("dtype"), py::arg("num_threads"));
}

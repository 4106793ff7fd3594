// Glue of the ops on pictures and on frames of channels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arguments.h"
#include "dtg/color_match.h"
#include "dtg/rgb_to_yuv.h"
#include "dtg/winograd.h"
#include "dtg/yuv_to_rgb.h"

namespace py = pybind11;

namespace {

using dtg::check_threads;
using dtg::pointer;
using dtg::require;
using dtg::Rows;
using dtg::Shape;

using Size = std::pair<std::int64_t, std::int64_t>;

dtg::YuvLayout yuv_layout(const Size& size, const std::pair<int, int>& shifts, bool wide) {
    const auto [height, width] = size;
    const auto [shift_x, shift_y] = shifts;
    require(height >= 0 && width >= 0, "height and width must not be negative");
    require((shift_x | shift_y | 1) == 1, "shifts must be 0 or 1");
    return {height, width, shift_x, shift_y, wide};
}

// Luma, then two planes of chroma: (address, stride in samples).
void to_rgb(const std::vector<Rows>& planes, const Size& size, const std::pair<int, int>& shifts,
            bool wide, bool centred, const std::vector<float>& m, std::uintptr_t out,
            int num_threads) {
    const auto layout = yuv_layout(size, shifts, wide);
    require(planes.size() == 3 && m.size() == 7, "there are 3 planes and 7 coefficients");
    const bool empty = layout.height * layout.width == 0;
    dtg::YuvPlane yuv[3];
    for (int i = 0; i < 3; ++i) {
        yuv[i] = {pointer<const void>(planes[i].first), planes[i].second};
        require(empty || yuv[i].data, "the planes must not be null");
    }
    require(empty || out, "out must not be null");
    check_threads(num_threads);
    py::gil_scoped_release release;
    dtg::yuv_to_rgb(yuv[0], yuv[1], yuv[2], layout, centred,
                    {m[0], m[1], m[2], m[3], m[4], m[5], m[6]}, pointer<float>(out), num_threads);
}

void to_yuv(std::uintptr_t rgb, const Size& strides, const Size& size,
            const std::pair<int, int>& shifts, bool wide, const std::vector<float>& m,
            const std::vector<std::uintptr_t>& planes, int num_threads) {
    const auto layout = yuv_layout(size, shifts, wide);
    require(planes.size() == 3 && m.size() == 9, "there are 3 planes and 9 coefficients");
    const bool empty = layout.height * layout.width == 0;
    require(empty || (rgb && planes[0] && planes[1] && planes[2]),
            "rgb and the planes must not be null");
    check_threads(num_threads);
    py::gil_scoped_release release;
    dtg::rgb_to_yuv({pointer<const float>(rgb), strides.first, strides.second}, layout,
                    {m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8]},
                    pointer<void>(planes[0]), pointer<void>(planes[1]), pointer<void>(planes[2]),
                    num_threads);
}

// (address, stride of a frame, of a channel, of a row) of (T, 3, H, W) fp32.
using Clip = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t>;

dtg::ClipView clip_view(const Clip& clip) {
    return {pointer<const float>(std::get<0>(clip)), std::get<1>(clip), std::get<2>(clip),
            std::get<3>(clip)};
}

void match(const Clip& frames, const Clip& reference, std::int64_t num_frames, const Size& size,
           bool wavelet, double least_std, std::uintptr_t out, int num_threads) {
    const auto [height, width] = size;
    require(num_frames >= 0 && height >= 0 && width >= 0,
            "num_frames, height and width must not be negative");
    const auto x = clip_view(frames), r = clip_view(reference);
    require(num_frames * height * width == 0 || (x.data && r.data && out),
            "frames, reference and out must not be null");
    check_threads(num_threads);
    py::gil_scoped_release release;
    const dtg::ClipShape shape{num_frames, height, width};
    if (wavelet) {
        dtg::color_match_wavelet(x, r, shape, pointer<float>(out), num_threads);
    } else {
        dtg::color_match_adain(x, r, shape, least_std, pointer<float>(out), num_threads);
    }
}

// (first, num, channels, padded)
using Run = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

// Of frames of height x width pixels.
dtg::TileRun tile_run(const Run& run, std::int64_t height, std::int64_t width, int num_threads) {
    const auto [first, num, channels, padded] = run;
    require(height >= 1 && width >= 1, "frames must have pixels");
    require(channels >= 1 && padded >= channels, "padded >= channels >= 1 does not hold");
    const std::int64_t tiles = ((height + 3) / 4) * ((width + 3) / 4);
    require(first >= 0 && num >= 1 && first + num <= tiles,
            "the run must lie within the " + std::to_string(tiles) + " tiles");
    check_threads(num_threads);
    return {first, num, channels, padded};
}

void winograd_in(std::uintptr_t past, std::uintptr_t x, std::int64_t past_frames, const Shape& size,
                 std::int64_t scale, const Run& run, std::uintptr_t out, int num_threads) {
    const auto [frames, height, width] = size;
    require(past_frames >= 0 && (past_frames == 0 || past), "past must not be null");
    require(frames >= 1 && x && out, "x and out must not be null");
    require(scale == 1 || scale == 2, "scale must be 1 or 2, got " + std::to_string(scale));
    const auto tiles = tile_run(run, scale * height, scale * width, num_threads);
    const dtg::WinogradSource source{pointer<const float>(past), pointer<const float>(x),
                                     past_frames, frames, height, width, scale};
    py::gil_scoped_release release;
    dtg::winograd_input(source, tiles, pointer<float>(out), num_threads);
}

void winograd_out(std::uintptr_t m, std::uintptr_t bias, std::uintptr_t residual,
                  std::uintptr_t gamma, float eps, const Shape& size, const Run& run,
                  std::uintptr_t out, int num_threads) {
    const auto [frames, height, width] = size;
    require(frames >= 1 && m && bias && out, "m, bias and out must not be null");
    require(!residual || !gamma, "residual and gamma exclude each other");
    const auto tiles = tile_run(run, height, width, num_threads);
    const dtg::WinogradResult result{pointer<const float>(bias), pointer<const float>(residual),
                                     pointer<const float>(gamma), pointer<float>(out), frames,
                                     height, width, eps};
    py::gil_scoped_release release;
    dtg::winograd_output(pointer<const float>(m), tiles, result, num_threads);
}

}  // namespace

void bind_pictures(py::module_& module) {
    module.def("color_match", &match, py::arg("frames"), py::arg("reference"),
               py::arg("num_frames"), py::arg("size"), py::arg("wavelet"), py::arg("least_std"),
               py::arg("out"), py::arg("num_threads"));
    module.def("rgb_to_yuv", &to_yuv, py::arg("rgb"), py::arg("strides"), py::arg("size"),
               py::arg("shifts"), py::arg("wide"), py::arg("coefficients"), py::arg("planes"),
               py::arg("num_threads"));
    module.def("winograd_input", &winograd_in, py::arg("past"), py::arg("x"),
               py::arg("past_frames"), py::arg("size"), py::arg("scale"), py::arg("run"),
               py::arg("out"), py::arg("num_threads"));
    module.def("winograd_output", &winograd_out, py::arg("m"), py::arg("bias"),
               py::arg("residual"), py::arg("gamma"), py::arg("eps"), py::arg("size"),
               py::arg("run"), py::arg("out"), py::arg("num_threads"));
    module.def("yuv_to_rgb", &to_rgb, py::arg("planes"), py::arg("size"), py::arg("shifts"),
               py::arg("wide"), py::arg("centred"), py::arg("coefficients"), py::arg("out"),
               py::arg("num_threads"));
}

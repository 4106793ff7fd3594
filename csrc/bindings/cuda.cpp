// Glue of the CUDA kernels, which is compiled only where CUDA is.  Addresses lie
// on the current device; a stream is the number that torch.cuda.Stream.cuda_stream is.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "arguments.h"
#include "dtg/cuda/causal_conv3d.h"
#include "dtg/cuda/dtg_step.h"
#include "dtg/cuda/tile_blend.h"

namespace py = pybind11;

namespace {

using dtg::pointer;
using dtg::require;

constexpr std::int64_t kMaxPlanes = 500000, kMaxSide = 500000;  // what a grid of blocks can have

dtg::Dtype dtype_of(int code) {
    require(code >= 0 && code <= 2,
            "dtype must be 0 (fp32), 1 (bf16) or 2 (fp16), got " + std::to_string(code));
    return static_cast<dtg::Dtype>(code);
}

template <std::size_t N>
void require_sizes(const std::array<std::int64_t, N>& sizes, const char* name) {
    for (const std::int64_t size : sizes) {
        require(size >= 0, std::string(name) + " must not be negative");
    }
}

void step(std::uintptr_t x, std::uintptr_t v_cond, std::uintptr_t v_uncond, std::uintptr_t table,
          std::uintptr_t row, std::uintptr_t out, std::int64_t num, int v_dtype,
          std::uintptr_t stream) {
    require(num >= 0, "num must not be negative, got " + std::to_string(num));
    require(table, "table must not be null");
    require(num == 0 || (x && v_cond && out), "x, v_cond and out must not be null");
    const auto dtype = dtype_of(v_dtype);
    py::gil_scoped_release release;
    dtg::cuda::dtg_step(pointer<const float>(x), pointer<const void>(v_cond),
                        pointer<const void>(v_uncond), pointer<const float>(table),
                        pointer<const std::int64_t>(row), pointer<float>(out), num, dtype,
                        pointer<void>(stream));
}

void blend(std::uintptr_t values, std::uintptr_t origins, std::uintptr_t window_y,
           std::uintptr_t window_x, std::uintptr_t out, const std::array<std::int64_t, 4>& shape,
           const std::array<std::int64_t, 2>& size, int dtype, std::uintptr_t stream) {
    const auto [num, planes, tile_height, tile_width] = shape;
    const auto [height, width] = size;
    require_sizes(shape, "shape");
    require_sizes(size, "size");
    require(num <= dtg::cuda::kMaxTiles && planes <= kMaxPlanes, "too many tiles or planes");
    require(std::max({tile_height, tile_width, height, width}) <= kMaxSide, "too large a side");
    require(planes * height * width == 0 || out, "out must not be null");
    require(
        num * planes * tile_height * tile_width == 0 || (values && origins && window_y && window_x),
        "values, origins, window_y and window_x must not be null");
    const dtg::cuda::Blend sizes{num,
                                 planes,
                                 static_cast<int>(tile_height),
                                 static_cast<int>(tile_width),
                                 static_cast<int>(height),
                                 static_cast<int>(width)};
    const auto code = dtype_of(dtype);
    py::gil_scoped_release release;
    dtg::cuda::tile_blend(pointer<const void>(values), pointer<const std::int32_t>(origins),
                          pointer<const float>(window_y), pointer<const float>(window_x),
                          pointer<float>(out), sizes, code, pointer<void>(stream));
}

void assemble(std::uintptr_t past, std::uintptr_t chunk, std::uintptr_t out,
              const std::array<std::int64_t, 5>& shape, std::int64_t past_frames,
              std::int64_t front, const std::array<std::int64_t, 4>& padding, int dtype,
              std::uintptr_t stream) {
    const auto [batch, frames, height, width, channels] = shape;
    const auto [top, bottom, left, right] = padding;
    require_sizes(shape, "shape");
    require_sizes(padding, "padding");
    require(0 <= past_frames && past_frames <= front, "past_frames must be in 0 .. front");
    const dtg::cuda::ConvInput sizes{batch,    front, past_frames, frames, height, width,
                                     channels, top,   bottom,      left,   right};
    const std::int64_t frame = batch * height * width * channels;
    require(frame * past_frames == 0 || past, "past must not be null");
    require(frame * frames == 0 || chunk, "chunk must not be null");
    require(out, "out must not be null");
    const auto code = dtype_of(dtype);
    py::gil_scoped_release release;
    dtg::cuda::causal_conv3d(pointer<const void>(past), pointer<const void>(chunk),
                             pointer<void>(out), sizes, code, pointer<void>(stream));
}

}  // namespace

void bind_cuda(py::module_ module) {
    module.def("dtg_step", &step, py::arg("x"), py::arg("v_cond"), py::arg("v_uncond"),
               py::arg("table"), py::arg("row"), py::arg("out"), py::arg("num"), py::arg("v_dtype"),
               py::arg("stream"));
    module.def("tile_blend", &blend, py::arg("values"), py::arg("origins"), py::arg("window_y"),
               py::arg("window_x"), py::arg("out"), py::arg("shape"), py::arg("size"),
               py::arg("dtype"), py::arg("stream"));
    module.def("causal_conv3d", &assemble, py::arg("past"), py::arg("chunk"), py::arg("out"),
               py::arg("shape"), py::arg("past_frames"), py::arg("front"), py::arg("padding"),
               py::arg("dtype"), py::arg("stream"));
}

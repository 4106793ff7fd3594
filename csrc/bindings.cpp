// The only file that knows Python.  Tensors arrive as addresses; kernels/native.py has checked
// their device, type and layout, and what can be checked without torch is checked here.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "dtg/dtg_step.h"
#include "dtg/gate_residual_norm.h"
#include "dtg/gaussian_noise.h"
#include "dtg/gelu_bias.h"
#include "dtg/huge_pages.h"
#include "dtg/layernorm_modulate.h"
#include "dtg/multiversion.h"
#include "dtg/rmsnorm_rope.h"
#include "dtg/rmsnorm_silu.h"
#include "dtg/winograd.h"

namespace py = pybind11;

namespace {

template <class T>
T* pointer(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument(message);
}

void check_threads(int num_threads) {
    require(num_threads >= 1, "num_threads must be at least 1, got " + std::to_string(num_threads));
}

void step(std::uintptr_t x, std::uintptr_t v_cond, std::uintptr_t v_uncond, std::uintptr_t out,
          std::int64_t num, float w_cond, float w_uncond, float dt, int v_dtype, int num_threads) {
    require(num >= 0, "num must not be negative, got " + std::to_string(num));
    require(num == 0 || (x && v_cond && out), "x, v_cond and out must not be null");
    require(v_dtype >= 0 && v_dtype <= 2,
            "v_dtype must be 0 (fp32), 1 (bf16) or 2 (fp16), got " + std::to_string(v_dtype));
    check_threads(num_threads);
    py::gil_scoped_release release;
    dtg::dtg_step(pointer<const float>(x), pointer<const void>(v_cond),
                  pointer<const void>(v_uncond), pointer<float>(out), num, w_cond, w_uncond, dt,
                  static_cast<dtg::Dtype>(v_dtype), num_threads);
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

// (address, stride) of (B, D) fp32.
using Rows = std::pair<std::uintptr_t, std::int64_t>;
using Shape = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

dtg::SampleRows sample_rows(const Rows& rows) {
    return {pointer<const float>(rows.first), rows.second};
}

// Of x (B, N, D); `addresses` are null only where there are no values.
dtg::TokenShape tokens(const Shape& shape, std::initializer_list<std::uintptr_t> addresses,
                       int dtype, int num_threads) {
    const auto [batch, num, dim] = shape;
    require(batch >= 0 && num >= 0 && dim >= 1, "shape must be (B >= 0, N >= 0, D >= 1)");
    for (const std::uintptr_t address : addresses) {
        require(batch * num == 0 || address, "no address but that of an optional may be null");
    }
    require(dtype == 0 || dtype == 1,
            "dtype must be 0 (fp32) or 1 (bf16), got " + std::to_string(dtype));
    check_threads(num_threads);
    return {batch, num, dim};
}

void layernorm(std::uintptr_t x, const Rows& scale, const Rows& shift, std::uintptr_t out,
               const Shape& shape, float eps, int dtype, int num_threads) {
    const auto rows = tokens(shape, {x, scale.first, shift.first, out}, dtype, num_threads);
    py::gil_scoped_release release;
    dtg::layernorm_modulate(pointer<const void>(x), sample_rows(scale), sample_rows(shift),
                            pointer<void>(out), rows, eps, static_cast<dtg::Dtype>(dtype),
                            num_threads);
}

void residual(std::uintptr_t x, std::uintptr_t y, const Rows& gate, const Rows& scale,
              const Rows& shift, bool affine, std::uintptr_t sum, std::uintptr_t normed,
              const Shape& shape, float eps, int dtype, int num_threads) {
    const auto rows =
        tokens(shape, {x, y, scale.first, shift.first, sum, normed}, dtype, num_threads);
    const dtg::ResidualNorm op{pointer<const void>(x), pointer<const void>(y),
                               sample_rows(gate),      sample_rows(scale),
                               sample_rows(shift),     affine ? 0.0f : 1.0f,
                               eps,                    pointer<void>(sum),
                               pointer<void>(normed)};
    py::gil_scoped_release release;
    dtg::gate_residual_norm(op, rows, static_cast<dtg::Dtype>(dtype), num_threads);
}

void rmsnorm(std::uintptr_t x, std::uintptr_t weight, std::uintptr_t cos, std::uintptr_t sin,
             std::uintptr_t out, const Shape& shape, std::int64_t heads, float eps, int dtype,
             int num_threads) {
    const auto rows = tokens(shape, {x, weight, out}, dtype, num_threads);
    require(heads >= 1 && rows.dim % heads == 0, "dim must be a multiple of heads");
    require(!cos == !sin, "cos and sin are both given or both null");
    require(!cos || rows.dim / heads % 2 == 0, "a rotation needs heads of even width");
    py::gil_scoped_release release;
    dtg::rmsnorm_rope(pointer<const void>(x), pointer<const float>(weight),
                      pointer<const float>(cos), pointer<const float>(sin), pointer<void>(out),
                      rows, heads, eps, static_cast<dtg::Dtype>(dtype), num_threads);
}

// Of rows (N, D) of fp32 or bf16, by the checks of tokens (1, N, D).
void gelu(std::uintptr_t x, std::uintptr_t bias, std::uintptr_t out, std::int64_t num,
          std::int64_t dim, int dtype, int num_threads) {
    tokens({1, num, dim}, {x, bias, out}, dtype, num_threads);
    py::gil_scoped_release release;
    dtg::gelu_bias(pointer<const void>(x), pointer<const float>(bias), pointer<void>(out), num, dim,
                   static_cast<dtg::Dtype>(dtype), num_threads);
}

void rmsnorm_with_silu(std::uintptr_t x, std::uintptr_t gamma, std::uintptr_t out, std::int64_t num,
                       std::int64_t dim, float eps, bool silu, int dtype, int num_threads) {
    tokens({1, num, dim}, {x, gamma, out}, dtype, num_threads);
    py::gil_scoped_release release;
    dtg::rmsnorm_silu(pointer<const void>(x), pointer<const float>(gamma), pointer<void>(out), num,
                      dim, eps, silu, static_cast<dtg::Dtype>(dtype), num_threads);
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

PYBIND11_MODULE(_C, module) {
    module.doc() = "Compiled CPU kernels; call them through dtg_restore.kernels.";
    module.def("simd_level", &dtg::simd_level);
#ifdef _OPENMP
    module.attr("openmp") = true;
#else
    module.attr("openmp") = false;
#endif
    module.def("dtg_step", &step, py::arg("x"), py::arg("v_cond"), py::arg("v_uncond"),
               py::arg("out"), py::arg("num"), py::arg("w_cond"), py::arg("w_uncond"),
               py::arg("dt"), py::arg("v_dtype"), py::arg("num_threads"));
    module.def("gaussian_noise", &noise, py::arg("seed"), py::arg("start_frame"),
               py::arg("num_frames"), py::arg("channels"), py::arg("height"), py::arg("width"),
               py::arg("y0"), py::arg("x0"), py::arg("out"), py::arg("num_threads"));
    module.def("layernorm_modulate", &layernorm, py::arg("x"), py::arg("scale"), py::arg("shift"),
               py::arg("out"), py::arg("shape"), py::arg("eps"), py::arg("dtype"),
               py::arg("num_threads"));
    module.def("gate_residual_norm", &residual, py::arg("x"), py::arg("y"), py::arg("gate"),
               py::arg("scale"), py::arg("shift"), py::arg("affine"), py::arg("sum"),
               py::arg("normed"), py::arg("shape"), py::arg("eps"), py::arg("dtype"),
               py::arg("num_threads"));
    module.def("rmsnorm_rope", &rmsnorm, py::arg("x"), py::arg("weight"), py::arg("cos"),
               py::arg("sin"), py::arg("out"), py::arg("shape"), py::arg("heads"), py::arg("eps"),
               py::arg("dtype"), py::arg("num_threads"));
    module.def("gelu_bias", &gelu, py::arg("x"), py::arg("bias"), py::arg("out"), py::arg("num"),
               py::arg("dim"), py::arg("dtype"), py::arg("num_threads"));
    module.def(
        "prefer_huge_pages",
        [](std::uintptr_t address, std::size_t num) {
            dtg::prefer_huge_pages(pointer<void>(address), num);
        },
        py::arg("address"), py::arg("num"));
    module.def("rmsnorm_silu", &rmsnorm_with_silu, py::arg("x"), py::arg("gamma"), py::arg("out"),
               py::arg("num"), py::arg("dim"), py::arg("eps"), py::arg("silu"), py::arg("dtype"),
               py::arg("num_threads"));
    module.def("winograd_input", &winograd_in, py::arg("past"), py::arg("x"),
               py::arg("past_frames"), py::arg("size"), py::arg("scale"), py::arg("run"),
               py::arg("out"), py::arg("num_threads"));
    module.def("winograd_output", &winograd_out, py::arg("m"), py::arg("bias"),
               py::arg("residual"), py::arg("gamma"), py::arg("eps"), py::arg("size"),
               py::arg("run"), py::arg("out"), py::arg("num_threads"));
}

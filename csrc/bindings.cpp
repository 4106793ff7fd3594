// The only file that knows Python.  Tensors arrive as addresses; kernels/native.py has checked
// their device, type and layout, and what can be checked without torch is checked here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "dtg/attention.h"
#include "dtg/color_match.h"
#include "dtg/dtg_step.h"
#include "dtg/gate_residual_norm.h"
#include "dtg/gaussian_noise.h"
#include "dtg/layernorm_modulate.h"
#include "dtg/multiversion.h"
#include "dtg/quantize.h"
#include "dtg/rgb_to_yuv.h"
#include "dtg/rmsnorm_rope.h"
#include "dtg/yuv_to_rgb.h"

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

// (address, strides of batch, head and row) of (B, heads, rows, dim).
using Heads = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t>;

dtg::AttentionOperand operand(const Heads& heads) {
    const auto [address, batch, head, row] = heads;
    require(address, "no address may be null");
    return {pointer<const void>(address), batch, head, row};
}

void attend(const Heads& q, const Heads& k, const Heads& v, std::uintptr_t out,
            const std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>&
                shape,
            float scale, int dtype, int num_threads) {
    const auto [batch, heads, queries, keys, dim] = shape;
    require(batch >= 1 && heads >= 1 && queries >= 1 && keys >= 1,
            "batch, heads, queries and keys must be at least 1");
    require(dim >= 16 && dim % 16 == 0, "dim must be a multiple of 16");
    require(out, "no address may be null");
    require(dtype >= 0 && dtype <= 2 && dtg::attention_supported(static_cast<dtg::Dtype>(dtype)),
            "this processor has no attention of that dtype");
    check_threads(num_threads);
    const auto of_q = operand(q), of_k = operand(k), of_v = operand(v);
    py::gil_scoped_release release;
    dtg::attention(of_q, of_k, of_v, pointer<void>(out), {batch, heads, queries, keys, dim}, scale,
                   static_cast<dtg::Dtype>(dtype), num_threads);
}

std::pair<float, int> quantize(std::uintptr_t x, std::uintptr_t out, std::int64_t num, int dtype,
                               int num_threads) {
    require(num >= 1 && x && out, "num must be at least 1, x and out must not be null");
    require(dtype == 0 || dtype == 1,
            "dtype must be 0 (fp32) or 1 (bf16), got " + std::to_string(dtype));
    check_threads(num_threads);
    py::gil_scoped_release release;
    const auto made = dtg::quantize(pointer<const void>(x), pointer<std::uint8_t>(out), num,
                                    static_cast<dtg::Dtype>(dtype), num_threads);
    return {made.step, made.zero};
}

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

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() = "Compiled CPU kernels; call them through dtg_restore.kernels.";
    module.def("simd_level", &dtg::simd_level);
#ifdef _OPENMP
    module.attr("openmp") = true;
#else
    module.attr("openmp") = false;
#endif
    module.def(
        "attention_supported",
        [](int dtype) { return dtg::attention_supported(static_cast<dtg::Dtype>(dtype)); },
        py::arg("dtype"));
    module.def("attention", &attend, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("out"),
               py::arg("shape"), py::arg("scale"), py::arg("dtype"), py::arg("num_threads"));
    module.def("color_match", &match, py::arg("frames"), py::arg("reference"),
               py::arg("num_frames"), py::arg("size"), py::arg("wavelet"), py::arg("least_std"),
               py::arg("out"), py::arg("num_threads"));
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
    module.def("quantize", &quantize, py::arg("x"), py::arg("out"), py::arg("num"),
               py::arg("dtype"), py::arg("num_threads"));
    module.def("rgb_to_yuv", &to_yuv, py::arg("rgb"), py::arg("strides"), py::arg("size"),
               py::arg("shifts"), py::arg("wide"), py::arg("coefficients"), py::arg("planes"),
               py::arg("num_threads"));
    module.def("rmsnorm_rope", &rmsnorm, py::arg("x"), py::arg("weight"), py::arg("cos"),
               py::arg("sin"), py::arg("out"), py::arg("shape"), py::arg("heads"), py::arg("eps"),
               py::arg("dtype"), py::arg("num_threads"));
    module.def("yuv_to_rgb", &to_rgb, py::arg("planes"), py::arg("size"), py::arg("shifts"),
               py::arg("wide"), py::arg("centred"), py::arg("coefficients"), py::arg("out"),
               py::arg("num_threads"));
}

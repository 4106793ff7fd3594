// The only file that knows Python.  Tensors arrive as addresses; kernels/native.py has checked
// their device, type and layout, and what can be checked without torch is checked here.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "dtg/dtg_step.h"
#include "dtg/gaussian_noise.h"
#include "dtg/multiversion.h"

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
}

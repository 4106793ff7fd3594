// The module `_C`.  The files of this folder are the only ones that know Python.  Tensors arrive as
// addresses; kernels/native.py and the ops have checked their device, type and layout, and what can
// be checked without torch is checked here.
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

#include "arguments.h"
#include "dtg/huge_pages.h"
#include "dtg/multiversion.h"

namespace py = pybind11;

void bind_pictures(py::module_& module);
void bind_state(py::module_& module);
void bind_tokens(py::module_& module);
void bind_cuda(py::module_ module);

PYBIND11_MODULE(_C, module) {
    module.doc() = "Compiled kernels; call them through dtg_restore.kernels.";
    module.def("simd_level", &dtg::simd_level);
#ifdef _OPENMP
    module.attr("openmp") = true;
#else
    module.attr("openmp") = false;
#endif
    module.def(
        "prefer_huge_pages",
        [](std::uintptr_t address, std::size_t num) {
            dtg::prefer_huge_pages(dtg::pointer<void>(address), num);
        },
        py::arg("address"), py::arg("num"));
    bind_pictures(module);
    bind_state(module);
    bind_tokens(module);
    module.attr("cuda_missing") = DTG_CUDA_MISSING;  // why there is no submodule `cuda`
#ifdef DTG_CUDA
    bind_cuda(module.def_submodule("cuda", "Compiled CUDA kernels, on addresses and a stream."));
#endif
}

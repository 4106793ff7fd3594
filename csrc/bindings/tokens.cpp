// Glue of the ops on rows of tokens or of channels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <tuple>
#include <utility>

#include "arguments.h"
#include "dtg/attention.h"
#include "dtg/gate_residual_norm.h"
#include "dtg/gelu_bias.h"
#include "dtg/layernorm_modulate.h"
#include "dtg/quantize.h"
#include "dtg/rmsnorm_rope.h"
#include "dtg/rmsnorm_silu.h"

namespace py = pybind11;

namespace {

using dtg::check_threads;
using dtg::pointer;
using dtg::require;
using dtg::Rows;
using dtg::sample_rows;
using dtg::Shape;

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

}  // namespace

void bind_tokens(py::module_& module) {
    module.def(
        "attention_supported",
        [](int dtype) { return dtg::attention_supported(static_cast<dtg::Dtype>(dtype)); },
        py::arg("dtype"));
    module.def("attention", &attend, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("out"),
               py::arg("shape"), py::arg("scale"), py::arg("dtype"), py::arg("num_threads"));
    module.def("gate_residual_norm", &residual, py::arg("x"), py::arg("y"), py::arg("gate"),
               py::arg("scale"), py::arg("shift"), py::arg("affine"), py::arg("sum"),
               py::arg("normed"), py::arg("shape"), py::arg("eps"), py::arg("dtype"),
               py::arg("num_threads"));
    module.def("gelu_bias", &gelu, py::arg("x"), py::arg("bias"), py::arg("out"), py::arg("num"),
               py::arg("dim"), py::arg("dtype"), py::arg("num_threads"));
    module.def("layernorm_modulate", &layernorm, py::arg("x"), py::arg("scale"), py::arg("shift"),
               py::arg("out"), py::arg("shape"), py::arg("eps"), py::arg("dtype"),
               py::arg("num_threads"));
    module.def("quantize", &quantize, py::arg("x"), py::arg("out"), py::arg("num"),
               py::arg("dtype"), py::arg("num_threads"));
    module.def("rmsnorm_rope", &rmsnorm, py::arg("x"), py::arg("weight"), py::arg("cos"),
               py::arg("sin"), py::arg("out"), py::arg("shape"), py::arg("heads"), py::arg("eps"),
               py::arg("dtype"), py::arg("num_threads"));
    module.def("rmsnorm_silu", &rmsnorm_with_silu, py::arg("x"), py::arg("gamma"), py::arg("out"),
               py::arg("num"), py::arg("dim"), py::arg("eps"), py::arg("silu"), py::arg("dtype"),
               py::arg("num_threads"));
}

#include "tensor.h"

#include <cassert>
#include <cstring>

#include "error.h"

namespace dtg::host {

std::size_t size_of(Type type) {
    switch (type) {
        case Type::kFloat32:
            return 4;
        case Type::kInt64:
            return 8;
        default:
            return 2;
    }
}

Type type_named(const std::string& name) {
    if (name == "float32") return Type::kFloat32;
    if (name == "float16") return Type::kFloat16;
    if (name == "bfloat16") return Type::kBFloat16;
    if (name == "int64") return Type::kInt64;
    engine_error("tensors of the type " + name + " are not known");
}

std::int64_t count_of(const Shape& shape) {
    std::int64_t count = 1;
    for (const std::int64_t side : shape) count *= side;
    return count;
}

std::string written(const Shape& shape) {
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); ++i) {
        text += (i ? ", " : "") + std::to_string(shape[i]);
    }
    return text + ")";
}

Tensor::Tensor(Type type, Shape shape) : type_(type), shape_(std::move(shape)) {
    data_.reset(new std::byte[bytes()]);
}

Tensor Tensor::zeros(Shape shape) {
    Tensor made(Type::kFloat32, std::move(shape));
    std::memset(made.data(), 0, made.bytes());
    return made;
}

float* Tensor::floats() {
    assert(type_ == Type::kFloat32);
    return reinterpret_cast<float*>(data_.get());
}

const float* Tensor::floats() const {
    assert(type_ == Type::kFloat32);
    return reinterpret_cast<const float*>(data_.get());
}

std::int64_t* Tensor::integers() {
    assert(type_ == Type::kInt64);
    return reinterpret_cast<std::int64_t*>(data_.get());
}

Tensor take(const Tensor& x, std::size_t axis, const std::vector<std::int64_t>& rows) {
    Shape shape = x.shape();
    std::int64_t outer = 1;
    for (std::size_t i = 0; i < axis; ++i) outer *= shape[i];
    const std::int64_t count = shape[axis];
    shape[axis] = static_cast<std::int64_t>(rows.size());
    Tensor made(x.type(), shape);
    const std::size_t row = x.bytes() / static_cast<std::size_t>(outer * count);
    std::byte* to = made.data();
    for (std::int64_t o = 0; o < outer; ++o) {
        for (const std::int64_t i : rows) {
            std::memcpy(to, x.data() + static_cast<std::size_t>(o * count + i) * row, row);
            to += row;
        }
    }
    return made;
}

}  // namespace dtg::host

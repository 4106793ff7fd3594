// Arrays in memory of their own, contiguous, as engines take and give them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace dtg::host {

enum class Type { kFloat32, kFloat16, kBFloat16, kInt64 };

std::size_t size_of(Type type);
// By torch's names, such as "float32"; engine error for another one.
Type type_named(const std::string& name);

using Shape = std::vector<std::int64_t>;
std::int64_t count_of(const Shape& shape);
std::string written(const Shape& shape);

class Tensor {
  public:
    Tensor() = default;
    Tensor(Type type, Shape shape);  // uninitialised
    static Tensor zeros(Shape shape);

    Type type() const { return type_; }
    const Shape& shape() const { return shape_; }
    std::int64_t size(std::size_t axis) const { return shape_[axis]; }
    std::int64_t count() const { return count_of(shape_); }
    std::size_t bytes() const { return static_cast<std::size_t>(count()) * size_of(type_); }

    std::byte* data() { return data_.get(); }
    const std::byte* data() const { return data_.get(); }
    float* floats();
    const float* floats() const;
    std::int64_t* integers();

  private:
    Type type_ = Type::kFloat32;
    Shape shape_;
    std::unique_ptr<std::byte[]> data_;
};

using Tensors = std::map<std::string, Tensor>;
using Inputs = std::map<std::string, const Tensor*>;

// The same rows of every one of `outer` parts: out[o, i] = x[o, rows[i]], where x has the axes
// (outer, count, inner...).  `axis` is that of `count`.
Tensor take(const Tensor& x, std::size_t axis, const std::vector<std::int64_t>& rows);

}  // namespace dtg::host

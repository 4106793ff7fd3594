// A strict reader of JSON (RFC 8259).
//
// It is our own because what it reads is small and render nodes build without a network: a
// dependency would have to be carried along for the sake of one file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dtg::host {

// A value, as it stands in the file: members of objects keep their order, which is the order of a
// component's tensors.  Asking for another kind than the value's is an engine error that names it.
class Json {
  public:
    enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };
    using Members = std::vector<std::pair<std::string, Json>>;

    // Engine error, with the place, where `text` is not one JSON value.
    static Json parse(std::string_view text);

    Kind kind() const { return kind_; }
    bool is_null() const { return kind_ == Kind::kNull; }
    bool is_string() const { return kind_ == Kind::kString; }
    bool boolean() const;
    double number() const;
    std::int64_t integer() const;  // a number without a fraction
    const std::string& string() const;
    const std::vector<Json>& array() const;
    const Members& object() const;

    // A member of an object: `at` demands it, `find` gives null where it is absent.
    const Json& at(std::string_view name) const;
    const Json* find(std::string_view name) const;

    std::vector<double> numbers() const;
    std::vector<std::int64_t> integers() const;

    // An object as Python's json.dumps(..., sort_keys=True) writes it, without the member `left_out`:
    // what the sum of a manifest is taken of.
    std::string canonical(std::string_view left_out) const;

  private:
    friend class JsonParser;
    void require(Kind kind, const char* wanted) const;
    void write(std::string& out) const;

    Kind kind_ = Kind::kNull;
    bool bool_ = false;
    double number_ = 0;
    std::string string_;  // of a number, its digits as they stand in the file
    std::vector<Json> array_;
    Members members_;
};

}  // namespace dtg::host

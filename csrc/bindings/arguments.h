// What the files of bindings share: addresses from Python, and errors that become ValueError there.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "dtg/tokens.h"

namespace dtg {

template <class T>
T* pointer(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

inline void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument(message);
}

inline void check_threads(int num_threads) {
    require(num_threads >= 1, "num_threads must be at least 1, got " + std::to_string(num_threads));
}

// (address, stride) of (B, D) fp32.
using Rows = std::pair<std::uintptr_t, std::int64_t>;
using Shape = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

inline SampleRows sample_rows(const Rows& rows) {
    return {pointer<const float>(rows.first), rows.second};
}

}  // namespace dtg

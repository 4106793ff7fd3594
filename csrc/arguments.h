// What the files of bindings share: addresses from Python, and errors that become ValueError there.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace dtg {

template <class T>
T* pointer(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

inline void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument(message);
}

}  // namespace dtg

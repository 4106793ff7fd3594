// Memory that was just taken and is about to be written: page by page the kernel needs longer to
// hand it out than a pass over it takes.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dtg {

// Asks for pages of 2 MiB within these bytes; their contents stay.  A hint: nothing depends on it.
inline void prefer_huge_pages(void* address, std::size_t num) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr std::uintptr_t kPage = std::uintptr_t{2} << 20;
    const auto start = reinterpret_cast<std::uintptr_t>(address);
    const std::uintptr_t first = (start + kPage - 1) / kPage * kPage;
    const std::uintptr_t last = (start + num) / kPage * kPage;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)address;
    (void)num;
#endif
}

}  // namespace dtg

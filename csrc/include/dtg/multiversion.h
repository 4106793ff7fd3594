// One source, several instruction sets: a function marked DTG_MULTIVERSION is compiled for AVX-512,
// for AVX2 and for the baseline, and the loader takes the best one that the processor has.
//
// Mark the inner function that works on a range, never one that holds an OpenMP region: the region
// is outlined before the clones are made, and would stay baseline code.
#pragma once

#include <cstddef>  // defines __GLIBC__ where it applies

// The choice at load time needs the ifunc relocation: ELF and glibc.
#if defined(__x86_64__) && defined(__ELF__) && defined(__GLIBC__) && \
    (!defined(__clang__) || __clang_major__ >= 14)
#define DTG_MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#define DTG_HAS_MULTIVERSION 1
#else
#define DTG_MULTIVERSION
#define DTG_HAS_MULTIVERSION 0
#endif

#if defined(__GNUC__)
#define DTG_INLINE inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define DTG_INLINE __forceinline
#else
#define DTG_INLINE inline
#endif

namespace dtg {

// The instruction set that the marked functions run with here: "avx512", "avx2" or "baseline".
inline const char* simd_level() {
#if DTG_HAS_MULTIVERSION
    if (__builtin_cpu_supports("avx512f")) return "avx512";
    if (__builtin_cpu_supports("avx2")) return "avx2";
#endif
    return "baseline";
}

}  // namespace dtg

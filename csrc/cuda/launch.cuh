// What the CUDA kernels share: values of each dtype as fp32, groups of them, and the launch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace dtg::cuda {

struct Float32 {
    using Storage = float;
    static __device__ float load(Storage v) { return v; }
};

struct BFloat16 {
    using Storage = std::uint16_t;
    static __device__ float load(Storage v) { return __uint_as_float(std::uint32_t{v} << 16); }
};

struct Float16 {
    using Storage = std::uint16_t;
    static __device__ float load(Storage v) {
        float value;  // cuda_fp16.h would take seconds to compile
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(v));
        return value;
    }
};

// N neighbours that are read or written at once.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T value[N];
};

inline bool is_aligned(const void* address, std::uintptr_t bytes) {
    return reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
}

// std::runtime_error with the text of what went wrong.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, void* stream,
            Arguments... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = static_cast<cudaStream_t>(stream);
    cudaLaunchKernelEx(&config, kernel, arguments...);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) {
        throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
    }
}

}  // namespace dtg::cuda

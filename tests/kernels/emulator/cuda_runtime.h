// As much of the CUDA runtime as the kernels use, on the threads of a processor: for tests of what
// they compute, not of how fast.  A block is a barrier's worth of threads; blocks run one by one.
#pragma once

#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    cudaStream_t stream;
};
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }

inline thread_local dim3 blockIdx, threadIdx;
inline dim3 gridDim;
inline std::barrier<>*block_barrier, *warp_barrier;  // warp_barrier: of the first warp
inline bool votes[2][32];
inline thread_local int num_votes;

inline void __syncthreads() { block_barrier->arrive_and_wait(); }

// The votes of one call are written while slow threads still read those of the call before.
inline unsigned __ballot_sync(unsigned, bool vote) {
    bool* const cast = votes[num_votes++ % 2];
    cast[threadIdx.x] = vote;
    warp_barrier->arrive_and_wait();
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= unsigned{cast[lane]} << lane;
    return bits;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float half_to_float(std::uint16_t v) {
    const int exponent = v >> 10 & 31, mantissa = v & 1023;
    float value = exponent == 0    ? std::ldexp(float(mantissa), -24)
                  : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                   : std::ldexp(float(1024 + mantissa), exponent - 25);
    return v & 0x8000 ? -value : value;
}
#define asm(...) value = half_to_float(v)  // the one instruction that is written out

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
    const dim3 grid = gridDim = config->gridDim, block = config->blockDim;
    const unsigned num_threads = block.x * block.y;
    std::barrier<> inside(num_threads), between(num_threads), warp(32);
    block_barrier = &inside;
    warp_barrier = &warp;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < num_threads; ++i) {
        threads.emplace_back([&, i] {
            threadIdx = dim3(i % block.x, i / block.x);
            for (unsigned b = 0; b < grid.x * grid.y * grid.z; ++b) {
                blockIdx = dim3(b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y));
                kernel(arguments...);
                between.arrive_and_wait();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    return cudaSuccess;
}

// B^T d B and A^T m A of Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2015).
// Both sides are done one after the other for a block of channels, which lies in the first cache.
#include "dtg/winograd.h"

#include <algorithm>
#include <vector>

#include "dtg/multiversion.h"
#include "dtg/rmsnorm_silu.h"

namespace dtg {
namespace {

constexpr int kBlock = 32;  // channels

struct Six {
    float v[kWindow];
};

struct Four {
    float v[kTile];
};

// One side of B^T d B.
DTG_INLINE Six inwards(float d0, float d1, float d2, float d3, float d4, float d5) {
    const float even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1;
    const float near = d4 - d2, twice = 2.0f * (d3 - d1);
    return {{4.0f * d0 - 5.0f * d2 + d4, even + odd, even - odd, near + twice, near - twice,
             4.0f * d1 - 5.0f * d3 + d5}};
}

// One side of A^T m A.
DTG_INLINE Four outwards(float m0, float m1, float m2, float m3, float m4, float m5) {
    const float sum = m1 + m2, rest = m1 - m2, sum2 = m3 + m4, rest2 = m3 - m4;
    return {{m0 + sum + sum2, rest + 2.0f * rest2, sum + 4.0f * sum2, rest + 8.0f * rest2 + m5}};
}

using Block = float[kWindow][kWindow][kBlock];

// The stores are written out one by one, as the compiler vectorises no loop with an inner one.
DTG_INLINE void window_in(const float* const (&pixels)[kWindow][kWindow], std::int64_t first,
                          int num, Block& half, float* out, std::int64_t padded) {
    for (int row = 0; row < kWindow; ++row) {
        const float* const p0 = pixels[row][0] + first;
        const float* const p1 = pixels[row][1] + first;
        const float* const p2 = pixels[row][2] + first;
        const float* const p3 = pixels[row][3] + first;
        const float* const p4 = pixels[row][4] + first;
        const float* const p5 = pixels[row][5] + first;
        auto& to = half[row];
#pragma omp simd
        for (int i = 0; i < num; ++i) {
            const Six six = inwards(p0[i], p1[i], p2[i], p3[i], p4[i], p5[i]);
            to[0][i] = six.v[0];
            to[1][i] = six.v[1];
            to[2][i] = six.v[2];
            to[3][i] = six.v[3];
            to[4][i] = six.v[4];
            to[5][i] = six.v[5];
        }
    }
    for (int column = 0; column < kWindow; ++column) {
        const std::int64_t step = kWindow * padded;
        float* const to0 = out + column * padded + first;
        float* const to1 = to0 + step;
        float* const to2 = to1 + step;
        float* const to3 = to2 + step;
        float* const to4 = to3 + step;
        float* const to5 = to4 + step;
#pragma omp simd
        for (int i = 0; i < num; ++i) {
            const Six six = inwards(half[0][column][i], half[1][column][i], half[2][column][i],
                                    half[3][column][i], half[4][column][i], half[5][column][i]);
            to0[i] = six.v[0];
            to1[i] = six.v[1];
            to2[i] = six.v[2];
            to3[i] = six.v[3];
            to4[i] = six.v[4];
            to5[i] = six.v[5];
        }
    }
}

DTG_INLINE void window_out(const float* m, std::int64_t padded, std::int64_t first, int num,
                           Block& half, float* out, std::int64_t channels) {
    for (int column = 0; column < kWindow; ++column) {
        const std::int64_t step = kWindow * padded;
        const float* const m0 = m + column * padded + first;
        const float* const m1 = m0 + step;
        const float* const m2 = m1 + step;
        const float* const m3 = m2 + step;
        const float* const m4 = m3 + step;
        const float* const m5 = m4 + step;
#pragma omp simd
        for (int i = 0; i < num; ++i) {
            const Four four = outwards(m0[i], m1[i], m2[i], m3[i], m4[i], m5[i]);
            half[0][column][i] = four.v[0];
            half[1][column][i] = four.v[1];
            half[2][column][i] = four.v[2];
            half[3][column][i] = four.v[3];
        }
    }
    for (int row = 0; row < kTile; ++row) {
        const auto& h = half[row];
        float* const to0 = out + row * kTile * channels + first;
        float* const to1 = to0 + channels;
        float* const to2 = to1 + channels;
        float* const to3 = to2 + channels;
#pragma omp simd
        for (int i = 0; i < num; ++i) {
            const Four four = outwards(h[0][i], h[1][i], h[2][i], h[3][i], h[4][i], h[5][i]);
            to0[i] = four.v[0];
            to1[i] = four.v[1];
            to2[i] = four.v[2];
            to3[i] = four.v[3];
        }
    }
}

struct Input {
    const WinogradSource& source;
    const TileRun& run;
    float* out;
    const float* zeros;
};

struct Output {
    const float* m;
    const TileRun& run;
    const WinogradResult& result;
};

// Tiles begin .. end, counted through all frames one after the other.
DTG_MULTIVERSION void tiles_in(const Input& job, std::int64_t begin, std::int64_t end) {
    const WinogradSource& s = job.source;
    const TileRun& run = job.run;
    const std::int64_t height = s.height * s.scale, width = s.width * s.scale;
    const std::int64_t columns = (width + kTile - 1) / kTile;
    const std::int64_t values = s.height * s.width * run.channels;
    const int twice = s.scale == 2 ? 1 : 0;
    Block half;
    for (std::int64_t index = begin; index < end; ++index) {
        const std::int64_t frame = index / run.num, tile = run.first + index % run.num;
        const std::int64_t top = tile / columns * kTile - 1, left = tile % columns * kTile - 1;
        const float* const base = frame < s.past_frames ? s.past + frame * values
                                                        : s.x + (frame - s.past_frames) * values;
        const float* pixels[kWindow][kWindow];
        for (int row = 0; row < kWindow; ++row) {
            const std::int64_t y = top + row;
            const float* const line = base + (y >> twice) * s.width * run.channels;
            for (int column = 0; column < kWindow; ++column) {
                const std::int64_t x = left + column;
                const bool inside = y >= 0 && y < height && x >= 0 && x < width;
                pixels[row][column] = inside ? line + (x >> twice) * run.channels : job.zeros;
            }
        }
        float* const out = job.out + index * kPlaces * run.padded;
        std::int64_t c = 0;
        for (; c + kBlock <= run.channels; c += kBlock) {
            window_in(pixels, c, kBlock, half, out, run.padded);
        }
        if (c < run.channels) {
            window_in(pixels, c, static_cast<int>(run.channels - c), half, out, run.padded);
        }
        for (int place = 0; run.channels < run.padded && place < kPlaces; ++place) {
            std::fill(out + place * run.padded + run.channels, out + (place + 1) * run.padded,
                      0.0f);
        }
    }
}

// The bias to all pixels of a tile, and what their norms are to be multiplied by.
DTG_INLINE void prepare_norms(float* __restrict pixels, const WinogradResult& r,
                              std::int64_t channels, float* __restrict inverse) {
    static_assert(kTile * kTile == kRows, "the norms of a tile are computed at once");
    for (int p = 0; p < kRows; ++p) {
        for (std::int64_t i = 0; i < channels; ++i) pixels[p * channels + i] += r.bias[i];
    }
    inverse_norms(pixels, channels, kRows, channels, r.eps, inverse);
}

// A pixel of a tile to its place.
DTG_INLINE void finish(const float* __restrict pixel, const WinogradResult& r, std::int64_t place,
                       std::int64_t channels, float inverse) {
    const float* __restrict bias = r.bias;
    float* __restrict out = r.out + place;
    if (r.gamma != nullptr) {
        scale_row<Float32, true>(pixel, r.gamma, inverse, out, channels);
    } else if (r.residual != nullptr) {
        const float* __restrict residual = r.residual + place;
        for (std::int64_t i = 0; i < channels; ++i) out[i] = pixel[i] + bias[i] + residual[i];
    } else {
        for (std::int64_t i = 0; i < channels; ++i) out[i] = pixel[i] + bias[i];
    }
}

DTG_MULTIVERSION void tiles_out(const Output& job, std::int64_t begin, std::int64_t end,
                                float* pixels) {
    const WinogradResult& r = job.result;
    const TileRun& run = job.run;
    const std::int64_t columns = (r.width + kTile - 1) / kTile;
    Block half;
    for (std::int64_t index = begin; index < end; ++index) {
        const std::int64_t frame = index / run.num, tile = run.first + index % run.num;
        const std::int64_t top = tile / columns * kTile, left = tile % columns * kTile;
        const float* const m = job.m + index * kPlaces * run.padded;
        std::int64_t c = 0;
        for (; c + kBlock <= run.channels; c += kBlock) {
            window_out(m, run.padded, c, kBlock, half, pixels, run.channels);
        }
        if (c < run.channels) {
            window_out(m, run.padded, c, static_cast<int>(run.channels - c), half, pixels,
                       run.channels);
        }
        float inverse[kRows] = {};
        if (r.gamma != nullptr) prepare_norms(pixels, r, run.channels, inverse);
        const std::int64_t down = std::min<std::int64_t>(kTile, r.height - top);
        const std::int64_t wide = std::min<std::int64_t>(kTile, r.width - left);
        for (std::int64_t row = 0; row < down; ++row) {
            for (std::int64_t column = 0; column < wide; ++column) {
                const std::int64_t pixel = (frame * r.height + top + row) * r.width + left + column;
                const std::int64_t place = row * kTile + column;
                finish(pixels + place * run.channels, r, pixel * run.channels, run.channels,
                       inverse[place]);
            }
        }
    }
}

// Calls work(begin, end) for ranges of `total` tiles, in parallel.
template <class Work>
void for_tiles(std::int64_t total, int num_threads, Work work) {
    const std::int64_t parts = std::min<std::int64_t>(num_threads, total);
    const std::int64_t each = parts ? (total + parts - 1) / parts : 0;
#pragma omp parallel for schedule(static) num_threads(static_cast<int>(parts)) if (parts > 1)
    for (std::int64_t part = 0; part < parts; ++part) {
        work(part * each, std::min(total, (part + 1) * each));
    }
}

}  // namespace

void winograd_input(const WinogradSource& source, const TileRun& run, float* out,
                    int num_threads) {
    const std::vector<float> zeros(static_cast<std::size_t>(run.channels));
    const Input job{source, run, out, zeros.data()};
    for_tiles((source.past_frames + source.frames) * run.num, num_threads,
              [&](std::int64_t begin, std::int64_t end) { tiles_in(job, begin, end); });
}

void winograd_output(const float* m, const TileRun& run, const WinogradResult& result,
                     int num_threads) {
    const Output job{m, run, result};
    for_tiles(result.frames * run.num, num_threads, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> pixels(static_cast<std::size_t>(kTile * kTile * run.channels));
        tiles_out(job, begin, end, pixels.data());
    });
}

}  // namespace dtg

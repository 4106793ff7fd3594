// A strip of neighbouring tokens goes through all steps in a buffer that the L1 cache holds; each
// step is a loop over lanes that the compiler vectorises.
#include "dtg/patch_codec.h"

#include <algorithm>

#include "dtg/multiversion.h"

namespace dtg {
namespace {

constexpr std::int64_t kSide = 8, kPixels = kSide * kSide;  // of a block in one frame and colour
constexpr std::int64_t kPlanes = 6;                         // 3 colours x 2 frames
constexpr std::int64_t kStrip = 8;                          // tokens
constexpr std::int64_t kLanes = kStrip * kSide;             // pixels of a row of the strip

// A plane is rows of lanes ([y][token][x]) on the side of the pixels, and token by token
// ([token][ky][kx]) on the side of the channels.
struct Buffer {
    alignas(64) float pixels[kPlanes][kSide * kLanes];
    alignas(64) float channels[kPlanes][kSide * kLanes];
};

// Half the cosines of i pi / 16, and the root of 1/8.
constexpr float kC1 = 0.49039264f, kC2 = 0.46193977f, kC3 = 0.41573481f, kC5 = 0.27778512f;
constexpr float kC6 = 0.19134172f, kC7 = 0.09754516f, kMean = 0.35355339f;

// The orthonormal 8-point DCT-II, by the symmetry of its even and odd rows.
DTG_INLINE void forward(const float (&x)[8], float (&z)[8]) {
    const float s0 = x[0] + x[7], s1 = x[1] + x[6], s2 = x[2] + x[5], s3 = x[3] + x[4];
    const float d0 = x[0] - x[7], d1 = x[1] - x[6], d2 = x[2] - x[5], d3 = x[3] - x[4];
    const float a0 = s0 + s3, a1 = s1 + s2, b0 = s0 - s3, b1 = s1 - s2;
    z[0] = kMean * (a0 + a1);
    z[4] = kMean * (a0 - a1);
    z[2] = kC2 * b0 + kC6 * b1;
    z[6] = kC6 * b0 - kC2 * b1;
    z[1] = (kC1 * d0 + kC3 * d1) + (kC5 * d2 + kC7 * d3);
    z[3] = (kC3 * d0 - kC7 * d1) - (kC1 * d2 + kC5 * d3);
    z[5] = (kC5 * d0 - kC1 * d1) + (kC7 * d2 + kC3 * d3);
    z[7] = (kC7 * d0 - kC5 * d1) + (kC3 * d2 - kC1 * d3);
}

// Its inverse, which is its transpose.
DTG_INLINE void inverse(const float (&z)[8], float (&x)[8]) {
    const float a0 = kMean * (z[0] + z[4]), a1 = kMean * (z[0] - z[4]);
    const float b0 = kC2 * z[2] + kC6 * z[6], b1 = kC6 * z[2] - kC2 * z[6];
    const float s0 = a0 + b0, s1 = a1 + b1, s2 = a1 - b1, s3 = a0 - b0;
    const float d0 = (kC1 * z[1] + kC3 * z[3]) + (kC5 * z[5] + kC7 * z[7]);
    const float d1 = (kC3 * z[1] - kC7 * z[3]) - (kC1 * z[5] + kC5 * z[7]);
    const float d2 = (kC5 * z[1] - kC1 * z[3]) + (kC7 * z[5] + kC3 * z[7]);
    const float d3 = (kC7 * z[1] - kC5 * z[3]) + (kC3 * z[5] - kC1 * z[7]);
    x[0] = s0 + d0;
    x[7] = s0 - d0;
    x[1] = s1 + d1;
    x[6] = s1 - d1;
    x[2] = s2 + d2;
    x[5] = s2 - d2;
    x[3] = s3 + d3;
    x[4] = s3 - d3;
}

// The DCT along x, of every row of `count` tokens.
template <bool kInverse>
DTG_INLINE void along_x(float* __restrict plane, std::int64_t count) {
    for (std::int64_t row = 0; row < count * kSide; ++row) {
        float in[8], out[8];
        for (int i = 0; i < 8; ++i) in[i] = plane[8 * row + i];
        kInverse ? inverse(in, out) : forward(in, out);
        for (int i = 0; i < 8; ++i) plane[8 * row + i] = out[i];
    }
}

// The DCT along y, on the way from [y][token][x] to [token][ky][x] or back.
template <bool kInverse>
DTG_INLINE void along_y(const float* __restrict from, float* __restrict to, std::int64_t count) {
    for (std::int64_t token = 0; token < count; ++token) {
        const std::int64_t by_row = token * kSide, by_token = token * kPixels;
        for (std::int64_t x = 0; x < kSide; ++x) {
            float in[8], out[8];
            for (int i = 0; i < 8; ++i) {
                in[i] = kInverse ? from[by_token + i * kSide + x] : from[by_row + i * kLanes + x];
            }
            kInverse ? inverse(in, out) : forward(in, out);
            for (int i = 0; i < 8; ++i) {
                to[kInverse ? by_row + i * kLanes + x : by_token + i * kSide + x] = out[i];
            }
        }
    }
}

// 1 / sqrt of 6, 4 and 12: the norms of the colours times that of the 2-point DCT.
constexpr float kGrey = 0.40824829f, kRedBlue = 0.5f, kGreen = 0.28867513f;

// Rows of both frames, `colour` values from red to green to blue, to a row of the six planes.
DTG_INLINE void mix_row(const float* __restrict x0, const float* __restrict x1, std::int64_t colour,
                        float* __restrict to, std::int64_t num) {
    constexpr std::int64_t kPlane = kSide * kLanes;
    for (std::int64_t i = 0; i < num; ++i) {
        const float r0 = x0[i], g0 = x0[colour + i], b0 = x0[2 * colour + i];
        const float r1 = x1[i], g1 = x1[colour + i], b1 = x1[2 * colour + i];
        const float r = r0 + r1, g = g0 + g1, b = b0 + b1;
        const float dr = r0 - r1, dg = g0 - g1, db = b0 - b1;
        to[i] = kGrey * (r + g + b);
        to[kPlane + i] = kGrey * (dr + dg + db);
        to[2 * kPlane + i] = kRedBlue * (r - b);
        to[3 * kPlane + i] = kRedBlue * (dr - db);
        to[4 * kPlane + i] = kGreen * (2.0f * g - r - b);
        to[5 * kPlane + i] = kGreen * (2.0f * dg - dr - db);
    }
}

DTG_INLINE void unmix_row(const float* __restrict from, std::int64_t colour, float* __restrict x0,
                          float* __restrict x1, std::int64_t num) {
    constexpr std::int64_t kPlane = kSide * kLanes;
    for (std::int64_t i = 0; i < num; ++i) {
        const float grey = kGrey * from[i], dgrey = kGrey * from[kPlane + i];
        const float rb = kRedBlue * from[2 * kPlane + i], drb = kRedBlue * from[3 * kPlane + i];
        const float green = kGreen * from[4 * kPlane + i], dgreen = kGreen * from[5 * kPlane + i];
        const float r = grey + rb - green, dr = dgrey + drb - dgreen;
        const float g = grey + 2.0f * green, dg = dgrey + 2.0f * dgreen;
        const float b = grey - rb - green, db = dgrey - drb - dgreen;
        x0[i] = r + dr;
        x1[i] = r - dr;
        x0[colour + i] = g + dg;
        x1[colour + i] = g - dg;
        x0[2 * colour + i] = b + db;
        x1[2 * colour + i] = b - db;
    }
}

// `count` tokens from (t, h, w) on, of one sample.
struct Strip {
    std::int64_t t, h, w, count;
};

// Calls row(y, first, second, column, lane, num) for the rows of the strip, in runs that do not go
// round: `first` and `second` are the places of the row in the two frames.
template <class Row>
DTG_INLINE void for_runs(const PatchShape& s, const Strip& strip, Row row) {
    const std::int64_t lanes = strip.count * kSide;
    const std::int64_t frame0 = (2 * strip.t + s.phase[0]) % s.frames;
    const std::int64_t frame1 = (2 * strip.t + 1 + s.phase[0]) % s.frames;
    const std::int64_t column = (kSide * strip.w + s.phase[2]) % s.width;
    const std::int64_t whole = std::min(lanes, s.width - column);
    for (std::int64_t y = 0; y < kSide; ++y) {
        const std::int64_t line = (kSide * strip.h + y + s.phase[1]) % s.height;
        const std::int64_t place0 = (frame0 * s.height + line) * s.width;
        const std::int64_t place1 = (frame1 * s.height + line) * s.width;
        row(y * kLanes, place0 + column, place1 + column, whole);
        row(y * kLanes + whole, place0, place1, lanes - whole);
    }
}

DTG_INLINE std::int64_t colour_stride(const PatchShape& s) { return s.frames * s.height * s.width; }

DTG_MULTIVERSION void encode_strip(const float* x, const float* shift, const float* scale, float* z,
                                   const PatchShape& shape, const Strip& strip, Buffer& buffer) {
    const std::int64_t colour = colour_stride(shape);
    for_runs(shape, strip, [&](std::int64_t lane, std::int64_t p0, std::int64_t p1,
                               std::int64_t num) {
        mix_row(x + p0, x + p1, colour, buffer.pixels[0] + lane, num);
    });
    for (std::int64_t p = 0; p < kPlanes; ++p) {
        along_y<false>(buffer.pixels[p], buffer.channels[p], strip.count);
        along_x<false>(buffer.channels[p], strip.count);
    }
    for (std::int64_t token = 0; token < strip.count; ++token) {
        for (std::int64_t p = 0; p < kPlanes; ++p) {
            const float* from = buffer.channels[p] + token * kPixels;
            float* __restrict to = z + token * kPatchChannels + p * kPixels;
            if (shift == nullptr) {
                std::copy(from, from + kPixels, to);
                continue;
            }
            const float *m = shift + p * kPixels, *s = scale + p * kPixels;
            for (std::int64_t i = 0; i < kPixels; ++i) to[i] = (from[i] - m[i]) * s[i];
        }
    }
}

DTG_MULTIVERSION void decode_strip(const float* z, const float* other, const float* weights,
                                   float* x, const PatchShape& shape, const Strip& strip,
                                   Buffer& buffer) {
    for (std::int64_t token = 0; token < strip.count; ++token) {
        for (std::int64_t p = 0; p < kPlanes; ++p) {
            const std::int64_t place = token * kPatchChannels + p * kPixels;
            float* __restrict to = buffer.channels[p] + token * kPixels;
            if (other == nullptr) {
                std::copy(z + place, z + place + kPixels, to);
                continue;
            }
            const float *w0 = weights + p * kPixels, *w1 = w0 + kPatchChannels;
            const float* w2 = w1 + kPatchChannels;
            for (std::int64_t i = 0; i < kPixels; ++i) {
                to[i] = w0[i] * z[place + i] + w1[i] * other[place + i] + w2[i];
            }
        }
    }
    for (std::int64_t p = 0; p < kPlanes; ++p) {
        along_x<true>(buffer.channels[p], strip.count);
        along_y<true>(buffer.channels[p], buffer.pixels[p], strip.count);
    }
    const std::int64_t colour = colour_stride(shape);
    for_runs(shape, strip, [&](std::int64_t lane, std::int64_t p0, std::int64_t p1,
                               std::int64_t num) {
        unmix_row(buffer.pixels[0] + lane, colour, x + p0, x + p1, num);
    });
}

// Calls work(sample, token, strip, buffer) for all strips, in parallel; `token` is the number of
// its first one.
template <class Work>
void for_strips(const PatchShape& shape, int num_threads, Work work) {
    const std::int64_t t = shape.frames / 2, h = shape.height / kSide, w = shape.width / kSide;
    const std::int64_t rows = shape.batch * t * h;
    const int threads = static_cast<int>(std::min<std::int64_t>(num_threads, rows));
    (void)threads;  // unused where there is no OpenMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t row = 0; row < rows; ++row) {
        Buffer buffer;
        for (std::int64_t first = 0; first < w; first += kStrip) {
            const Strip strip{row / h % t, row % h, first, std::min(kStrip, w - first)};
            work(row / (t * h), row * w + first, strip, buffer);
        }
    }
}

}  // namespace

void patch_encode(const float* x, SampleRows shift, SampleRows scale, float* z,
                  const PatchShape& shape, int num_threads) {
    for_strips(shape, num_threads,
               [&](std::int64_t sample, std::int64_t token, const Strip& strip, Buffer& buffer) {
                   const bool plain = shift.data == nullptr;
                   encode_strip(x + sample * 3 * colour_stride(shape),
                                plain ? nullptr : shift.at(sample),
                                plain ? nullptr : scale.at(sample), z + token * kPatchChannels,
                                shape, strip, buffer);
               });
}

void patch_decode(const float* z, const float* other, SampleRows weights, float* x,
                  const PatchShape& shape, int num_threads) {
    for_strips(shape, num_threads,
               [&](std::int64_t sample, std::int64_t token, const Strip& strip, Buffer& buffer) {
                   const std::int64_t place = token * kPatchChannels;
                   const bool plain = other == nullptr;
                   decode_strip(z + place, plain ? nullptr : other + place,
                                plain ? nullptr : weights.at(sample),
                                x + sample * 3 * colour_stride(shape), shape, strip, buffer);
               });
}

}  // namespace dtg

#include <algorithm>

#include "dtg/cuda/causal_conv3d.h"
#include "launch.cuh"

namespace dtg::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1 << 20;

// The words of one row of a frame of the input, or null where the row is zero.
template <class Word>
__device__ const Word* row_of_input(const Word* past, const Word* chunk, const ConvInput& shape,
                                    std::int64_t row, std::int64_t row_words) {
    const std::int64_t rows = shape.top + shape.height + shape.bottom;
    const std::int64_t frames = shape.front + shape.frames;
    const std::int64_t y = row % rows - shape.top;
    const std::int64_t frame = row / rows % frames - shape.front;
    const std::int64_t sample = row / (rows * frames);
    if (y < 0 || y >= shape.height || frame < -shape.past_frames) return nullptr;
    const Word* const source = frame < 0 ? past : chunk;
    const std::int64_t count = frame < 0 ? shape.past_frames : shape.frames;
    const std::int64_t index = frame < 0 ? frame + shape.past_frames : frame;
    return source + ((sample * count + index) * shape.height + y) * row_words;
}

// A block has whole rows: with channels last each is zeros, one run of the input, zeros.
template <class Word>
__global__ void __launch_bounds__(kThreads)
    assemble_kernel(const Word* __restrict__ past, const Word* __restrict__ chunk,
                    Word* __restrict__ out, ConvInput shape, std::int64_t num_rows,
                    int pixel_words) {
    const std::int64_t row_words = shape.width * pixel_words, left = shape.left * pixel_words;
    const std::int64_t out_words = row_words + left + shape.right * pixel_words;
    for (std::int64_t row = blockIdx.x; row < num_rows; row += gridDim.x) {
        const Word* const source = row_of_input(past, chunk, shape, row, row_words);
        Word* const target = out + row * out_words;
        for (std::int64_t i = threadIdx.x; i < out_words; i += kThreads) {
            const bool inside = source != nullptr && i >= left && i < left + row_words;
            target[i] = inside ? source[i - left] : Word{};
        }
    }
}

template <class Word>
void run(const void* past, const void* chunk, void* out, const ConvInput& shape,
         std::int64_t pixel_bytes, void* stream) {
    const std::int64_t rows = shape.top + shape.height + shape.bottom;
    const std::int64_t num_rows = shape.batch * (shape.front + shape.frames) * rows;
    if (num_rows * (shape.left + shape.width + shape.right) == 0) return;
    const auto blocks = static_cast<unsigned>(std::min(num_rows, kMaxBlocks));
    launch("causal_conv3d", assemble_kernel<Word>, blocks, kThreads, stream,
           static_cast<const Word*>(past), static_cast<const Word*>(chunk), static_cast<Word*>(out),
           shape, num_rows, static_cast<int>(pixel_bytes / sizeof(Word)));
}

}  // namespace

// Values are only moved: what counts is how wide a word the channels of a pixel can be cut into.
void causal_conv3d(const void* past, const void* chunk, void* out, const ConvInput& shape,
                   Dtype dtype, void* stream) {
    const std::int64_t bytes = shape.channels * (dtype == Dtype::kFloat32 ? 4 : 2);
    const auto fits = [&](std::int64_t word) {
        const auto width = static_cast<std::uintptr_t>(word);
        return bytes % word == 0 && is_aligned(past, width) && is_aligned(chunk, width) &&
               is_aligned(out, width);
    };
    const auto assemble = fits(16)  ? run<uint4>
                          : fits(8) ? run<uint2>
                          : fits(4) ? run<unsigned>
                                    : run<unsigned short>;
    assemble(past, chunk, out, shape, bytes, stream);
}

}  // namespace dtg::cuda

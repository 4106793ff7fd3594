/* dtg-restore for C and C++ hosts: opens an engine bundle and restores frames in memory, without
 * Python.
 *
 *     dtg_bundle* bundle;
 *     if (dtg_open("clip.bundle", NULL, &bundle) != DTG_OK) fail(dtg_last_error());
 *     dtg_settings settings;
 *     dtg_settings_default(bundle, &settings);
 *     dtg_output_size(bundle, &settings, height, width, &out_height, &out_width);
 *     float* out = malloc(...);
 *     if (dtg_restore(bundle, &settings, frames, T, height, width, out, NULL, NULL) != DTG_OK) ...
 *     dtg_close(bundle);
 *
 * Frames are (T, H, W, 3) fp32 without gaps: interleaved, gamma-encoded RGB in [0, 1], rows from the
 * top.  The buffer is one clip: its first frame is the clip's frame 0, which noise and chunks count
 * from, and no shot should change within it.
 *
 * Memory: whatever is passed in stays the caller's and is not kept after the call, nor written to
 * unless it is an output.  Strings that are given out live as long as the bundle, those of
 * dtg_last_error until the thread's next call.
 *
 * Threads: calls for different bundles are independent.  Calls for one bundle may come from several
 * threads; dtg_restore calls then take turns.  dtg_close may run in parallel with nothing else on
 * its bundle.  With the runtime "aot" the number of threads is a setting of the whole process.
 *
 * No C++ exception leaves these functions.
 */
#ifndef DTG_DTG_H
#define DTG_DTG_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(DTG_HOST_BUILD)
#define DTG_API __declspec(dllexport)
#else
#define DTG_API __declspec(dllimport)
#endif
#else
#define DTG_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers are the exit codes of the command line. */
typedef enum dtg_status {
    DTG_OK = 0,
    DTG_BUG = 1,         /* none of what follows: please report it */
    DTG_CONFIG = 2,      /* a setting is unknown, out of range or contradicts another one */
    DTG_INPUT = 3,       /* the frames cannot be used */
    DTG_ENGINE = 4,      /* the bundle is missing, damaged or does not fit this machine */
    DTG_MEMORY = 5,      /* the memory did not suffice */
    DTG_INTERRUPTED = 6, /* the progress callback asked to stop */
} dtg_status;

/* An opened bundle. */
typedef struct dtg_bundle dtg_bundle;

typedef struct dtg_options {
    size_t struct_size; /* sizeof(dtg_options) */
    int threads;        /* of the CPU; 0 = as many as there are cores */
    int device_index;   /* of the GPU, for bundles of device "cuda" */
} dtg_options;

typedef struct dtg_info {
    size_t struct_size;    /* set by the caller: sizeof(dtg_info) */
    const char* key;       /* SHA-256 over everything that decides what the bundle computes */
    const char* runtime;   /* "aot", "ort", "tensorrt" or "onnx" */
    const char* device;    /* "cpu" or "cuda" */
    const char* precision; /* "fp32", "bf16", "fp16" or "fp8" */
    const char* backbone;  /* its name, or "" where the bundle has none */
    int sr_scale;          /* of the super-resolution net; 0 where the bundle has none */
    int num_buckets;       /* shapes of tiles that the backbone is compiled for */
} dtg_info;

/* A shape of tile; the first is the preferred one. */
typedef struct dtg_bucket {
    int frames, height, width;
} dtg_bucket;

typedef enum dtg_guidance { DTG_GUIDANCE_DTG = 0, DTG_GUIDANCE_CFG, DTG_GUIDANCE_NONE } dtg_guidance;
typedef enum dtg_schedule_name {
    DTG_EXPONENTIAL = 0,
    DTG_COSINE,
    DTG_LINEAR,
    DTG_CONSTANT
} dtg_schedule_name;
typedef enum dtg_space { DTG_VELOCITY = 0, DTG_X0 } dtg_space;
typedef enum dtg_solver { DTG_EULER = 0, DTG_HEUN } dtg_solver;
typedef enum dtg_color_match {
    DTG_COLOR_NONE = 0,
    DTG_COLOR_WAVELET,
    DTG_COLOR_ADAIN
} dtg_color_match;
typedef enum dtg_branches {
    DTG_BRANCHES_AUTO = 0,  /* together where an engine takes so many samples, else in turn */
    DTG_BRANCHES_BATCHED,   /* both branches of guidance in one call */
    DTG_BRANCHES_SEQUENTIAL /* one after the other */
} dtg_branches;

/* What a run depends on.  Fill it by dtg_settings_default, then change what should differ; names and
 * ranges are those of the Python package's RestoreConfig. */
typedef struct dtg_settings {
    size_t struct_size;
    int refine;  /* 0 = super-resolution only */
    int upscale; /* 0 = refinement only */
    dtg_guidance guidance;
    double t_start; /* 0.001 .. 1 */
    int steps;      /* 1 .. 1000 */
    double delta0;  /* 0 .. 1 */
    double alpha0;  /* 0 .. 50 */
    dtg_schedule_name schedule;
    double kappa; /* 0.001 .. 50 */
    dtg_space space;
    int alpha_clip;
    double tau_floor; /* 0 .. 1 */
    dtg_solver solver;
    double shift;     /* 0.01 .. 100 */
    double elide_tol; /* 0 .. 1; 0 = exact */
    dtg_branches branches;
    dtg_color_match color_match;
    uint64_t seed;               /* below 2^63 */
    int chunk;                   /* frames of a bucket; 0 = those of the first that fits */
    int overlap;                 /* frames shared by neighbouring chunks; -1 = the bundle's own */
    int tile_width, tile_height; /* of a bucket; 0 and 0 = the preferred one */
    int tile_overlap;            /* pixels shared by neighbouring tiles; -1 = the bundle's own */
    int tile_batch;              /* tiles in one call; 0 = what the bucket has engines for */
    const char* prompt;          /* NULL = the bundle's own; of `mini`, a quality tag */
    const char* negative_prompt;
    const char* prompt_embeds; /* file of prompt embeddings; NULL = those of the bundle */
} dtg_settings;

/* A flow time of a run and what guidance has there: the guided velocity is
 * w_cond v(x, t | cond) + w_uncond v(x, tau | uncond). */
typedef struct dtg_node {
    double t, tau, alpha, w_cond, w_uncond;
} dtg_node;

/* Called after every step of the sampler and every finished frame, in the thread of dtg_restore.
 * `fraction` rises from 0 to 1.  A result other than 0 ends the run with DTG_INTERRUPTED. */
typedef int (*dtg_progress)(double fraction, void* user);

/* Checks the sums of all files, and that this machine fits; compiled parts are loaded when a run
 * first needs them.  `options` may be NULL.  On failure *bundle is NULL. */
DTG_API dtg_status dtg_open(const char* path, const dtg_options* options, dtg_bundle** bundle);
DTG_API void dtg_close(dtg_bundle* bundle); /* NULL is allowed */

DTG_API dtg_status dtg_bundle_info(const dtg_bundle* bundle, dtg_info* info);
DTG_API dtg_status dtg_bundle_bucket(const dtg_bundle* bundle, int index, dtg_bucket* bucket);
DTG_API void dtg_options_default(dtg_options* options);
DTG_API dtg_status dtg_settings_default(const dtg_bundle* bundle, dtg_settings* settings);

/* The steps + 1 nodes of a run, from t_start to 0; `nodes` has room for `capacity` of them. */
DTG_API dtg_status dtg_schedule(const dtg_settings* settings, dtg_node* nodes, int capacity);

DTG_API dtg_status dtg_output_size(const dtg_bundle* bundle, const dtg_settings* settings,
                                   int64_t height, int64_t width, int64_t* out_height,
                                   int64_t* out_width);

/* Restores a clip: frames (T, H, W, 3) to out (T, out_height, out_width, 3), which may not overlap
 * them.  Values of out may exceed [0, 1] slightly where the bundle enlarges.  Where the result is
 * not DTG_OK, out holds nothing of use.  `progress` may be NULL. */
DTG_API dtg_status dtg_restore(dtg_bundle* bundle, const dtg_settings* settings,
                               const float* frames, int64_t num_frames, int64_t height,
                               int64_t width, float* out, dtg_progress progress, void* user);

/* What went wrong in this thread's last call; "" where nothing did. */
DTG_API const char* dtg_last_error(void);

#ifdef __cplusplus
}
#endif

#endif

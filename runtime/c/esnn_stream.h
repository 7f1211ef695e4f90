/* edgesnn C core: a signal as it comes, see esnn.h for the model itself.
 *
 * Window mode: samples of sound or rows of another signal go in; whenever a window is complete, one inference is
 * due. Continuous mode: address events with times go in; whenever a step is over, it is due. The caller runs what
 * is due, so that it can measure, sleep or answer in between. No heap, no float; the caller owns all memory.
 */
#ifndef ESNN_STREAM_H
#define ESNN_STREAM_H

#include "esnn.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ESNN_DUE 2 /* a window is complete, or a step is over: run it, then go on */
#define ESNN_STREAM_NONE 0xFFFFFFFFu

/* Log-mel front end: int16 samples to rows of uint8 (compiler/front_end.py defines every bit). */
typedef struct esnn_log_mel {
  /* A row from the `frame` samples that begin at sample `first` of a ring of as many; work is int32[points]. */
  void (*row)(const struct esnn_log_mel *front, const int16_t *ring, uint32_t first, int32_t *work,
              uint8_t *row);
  const int16_t *window;  /* int16[frame], Q15, 0...32767 */
  const int32_t *quarter; /* int32[points / 4 + 1], cos(2 pi i / points) in Q31: 2^31 - 1 ... 0 */
  const int16_t *band;    /* int16[points / 2 + 1]: filter whose side rises at a bin, ascending; -1: none */
  const int16_t *rise;    /* int16[points / 2 + 1]: 0...256 */
  const int32_t *offset;  /* int32[bands] */
  int32_t gain;    /* (256 log2(energy) - offset) gain fits 32 bits */
  uint32_t frame;  /* samples that a row looks at */
  uint32_t hop;    /* samples from one row to the next */
  uint32_t points; /* of the Fourier transform, 16...4096, a power of two */
  uint32_t bands;
} esnn_log_mel;

/* How a signal becomes inferences: constant, lives in flash. */
typedef struct esnn_stream_model {
  const esnn_log_mel *log_mel; /* NULL: rows come as they are */
  const uint8_t *background;   /* uint8[classes], 1: never reported; NULL: no class is */
  uint32_t sample_bytes;       /* of a sample of sound, else of a row: the unit of time; events: 0 */
  uint32_t row_bytes;          /* of a row of the model's input */
  uint32_t rows;               /* of a window */
  uint32_t hop;                /* rows between windows, at most `rows` */
  uint32_t smooth;             /* windows that vote */
  uint32_t votes;              /* that a class needs */
  uint32_t refractory;         /* windows (steps) after a detection in which none is reported */
  uint32_t step_us;            /* continuous mode; 0: window mode */
  uint32_t memory_bytes;       /* that the caller provides */
} esnn_stream_model;

typedef struct esnn_stream_decision {
  uint64_t time;     /* samples, rows or microseconds since the start */
  uint32_t label;
  uint32_t step;     /* stopping timestep; in continuous mode steps since the start, modulo 2^32 */
  uint32_t exited;
  uint32_t smoothed; /* label, or ESNN_STREAM_NONE */
  uint32_t detected; /* 1: to be reported */
} esnn_stream_decision;

typedef struct esnn_stream {
  const esnn_stream_model *model;
  esnn_ctx *ctx;
  uint8_t *memory;
  uint64_t time;      /* of the signal when the last row was complete; of events, end of the last finished step */
  uint32_t missing;   /* bytes until the next row is complete */
  uint32_t sample_at; /* next byte of the ring of samples */
  uint32_t row_at;    /* next byte of the ring of rows */
  uint32_t until;     /* rows until a window is due */
  uint32_t due;       /* 1: a window is complete, 2: and esnn_stream_begin has handed it over */
  uint32_t steps;     /* of continuous mode, modulo 2^32 */
  uint32_t labels;    /* in the ring of votes */
  uint32_t label_at;  /* next place in it */
  uint32_t current;   /* class in force, or ESNN_STREAM_NONE */
  uint32_t hold;      /* windows (steps) left in which no detection is reported (the output does not run) */
  uint32_t decided;   /* there is a decision */
  uint32_t fresh;     /* it fell in the step before */
  esnn_stream_decision last;
} esnn_stream;

/* Bind a stream to a context that esnn_init has bound, and to memory_bytes of memory, 8-byte aligned. */
int32_t esnn_stream_init(esnn_stream *stream, const esnn_stream_model *model, esnn_ctx *ctx, void *memory,
                         size_t bytes);
/* Forget everything: time 0. Until then the context is the stream's: frames are not pushed, and no steps are run but
 * as below. */
int32_t esnn_stream_reset(esnn_stream *stream);

/* Window mode: take bytes of the signal, in any portions. *used says how many were taken: all of them with
 * ESNN_OK; with ESNN_DUE a window is complete, and the rest comes after it was classified. */
int32_t esnn_stream_push(esnn_stream *stream, const void *signal, size_t bytes, size_t *used);
/* Classify a window that is due: ESNN_DECIDED. The three parts of it, for callers that run step by step:
 * esnn_stream_begin, esnn_step until ESNN_DECIDED, esnn_stream_end. */
int32_t esnn_stream_classify(esnn_stream *stream);
int32_t esnn_stream_begin(esnn_stream *stream);
int32_t esnn_stream_end(esnn_stream *stream);

/* Continuous mode: one event. ESNN_DUE: it belongs to a later step; run esnn_stream_step, then offer it again.
 * An event of a step that is over is ESNN_ERR_ARGUMENT. */
int32_t esnn_stream_event(esnn_stream *stream, uint64_t time_us, uint32_t address);
/* ESNN_DUE while a step that ends at or before until_us has not run, ESNN_OK when all have. */
int32_t esnn_stream_advance(esnn_stream *stream, uint64_t until_us);
/* Run the step under way: ESNN_OK or ESNN_DECIDED. The output's membranes can be read until the next step, and
 * esnn_node_stats count from the step after the last decision on. */
int32_t esnn_stream_step(esnn_stream *stream);
/* Run one node of it; the step is over when ctx->node is 0 again. */
int32_t esnn_stream_step_node(esnn_stream *stream);

/* The last decision, once there is one. */
int32_t esnn_stream_result(const esnn_stream *stream, esnn_stream_decision *out);

/* What esnn_log_mel.row is. */
void esnn_log_mel_row(const esnn_log_mel *front, const int16_t *ring, uint32_t first, int32_t *work, uint8_t *row);

#ifdef __cplusplus
}
#endif
#endif

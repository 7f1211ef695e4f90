/* A model's stream on a signal from standard input, in portions of pseudo-random sizes: bytes of window mode, pairs
 * of int64 (microseconds, address) of continuous mode. One line a decision: time, label, smoothed, detected, step,
 * exited, membranes, then events and operations of every node. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

static uint32_t state = 1;

static size_t below(size_t limit) {
  state = 1664525u * state + 1013904223u;
  return (state >> 8) % limit;
}

static void show(const esnn_stream *stream) {
  esnn_stream_decision d;
  uint32_t i;
  if (esnn_stream_result(stream, &d) != ESNN_OK) {
    exit(3);
  }
  printf("%llu %u %d %u %u %u", (unsigned long long)d.time, (unsigned)d.label, (int)d.smoothed, (unsigned)d.detected,
         (unsigned)d.step, (unsigned)d.exited);
  for (i = 0; i < ESNN_MODEL_CLASSES; ++i) {
    int32_t u = 0;
    (void)esnn_membrane(stream->ctx, i, &u);
    printf(" %d", (int)u);
  }
  for (i = 0; i < ESNN_MODEL_NODES; ++i) {
    esnn_stats stats = {0, 0};
    (void)esnn_node_stats(stream->ctx, i, &stats);
    printf(" %u %u", (unsigned)stats.events, (unsigned)stats.sops);
  }
  printf("\n");
}

static int windows(esnn_stream *stream) {
  for (;;) {
    size_t size = 1u + below(below(2) == 0 ? 7 : 5000), used = 0, at = 0;
    uint8_t *part = malloc(size); /* its end is watched */
    size_t got = fread(part, 1, size, stdin);
    while (at < got) {
      int32_t code = esnn_stream_push(stream, part + at, got - at, &used);
      at += used;
      if (code == ESNN_DUE) {
        code = esnn_stream_classify(stream);
        if (code == ESNN_DECIDED) {
          show(stream);
        }
      }
      if (code < 0) {
        return 4;
      }
    }
    free(part);
    if (got == 0) {
      return 0;
    }
  }
}

static int events(esnn_stream *stream) {
  int64_t event[2];
  while (fread(event, sizeof event, 1, stdin) == 1) {
    int32_t code;
    do {
      code = esnn_stream_event(stream, (uint64_t)event[0], (uint32_t)event[1]);
      if (code == ESNN_DUE && esnn_stream_step(stream) == ESNN_DECIDED) {
        show(stream);
      }
    } while (code == ESNN_DUE);
    if (code < 0) {
      return 4;
    }
  }
  return 0;
}

int main(void) {
  esnn_ctx ctx;
  esnn_stream stream;
  void *arena = malloc(ESNN_MODEL_ARENA_BYTES), *memory = malloc(ESNN_MODEL_STREAM_BYTES + 0u);
  int failed = 2;
  memset(arena, 0x55, ESNN_MODEL_ARENA_BYTES);
  memset(memory, 0x55, ESNN_MODEL_STREAM_BYTES + 0u);
  if (esnn_init(&ctx, &esnn_model_data, arena, ESNN_MODEL_ARENA_BYTES) == ESNN_OK &&
      esnn_stream_init(&stream, &esnn_stream_data, &ctx, memory, ESNN_MODEL_STREAM_BYTES) == ESNN_OK) {
    failed = esnn_stream_data.step_us == 0 ? windows(&stream) : events(&stream);
  }
  free(arena);
  free(memory);
  return failed;
}

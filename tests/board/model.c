/* 28 x 28 samples -> latency encoder (t = 1 + (255 - x) / 64) -> 12 outputs, T = 4.
 * U[k] += (7 a + 13 k) % 17 - 8 for each event a; exit when some U >= TEST_THRESHOLD.
 * With TEST_EVENT_INPUT the caller pushes the events itself. conftest.py computes the same. With TEST_MEMBRANES the
 * outputs are those 12 numbers. With TEST_STREAM there is a stream: of rows, or of events. */
#include "model.h"

#ifndef TEST_THRESHOLD
#define TEST_THRESHOLD 60
#endif

#define PIXELS 784u
#define CLASSES 12u
#define INPUT 0u     /* frame, or one byte a pixel of which bit 0 is its event */
#define QUEUE 784u   /* uint16_t[784] */
#define COUNTS 2352u /* uint32_t[2] */
#define STATS 2360u  /* esnn_stats[2] */
#define OUTPUT 2376u /* int32_t[12] */

#ifndef TEST_EVENT_INPUT
static int32_t encode(uint8_t *arena, int32_t t, uint32_t *sops) {
  const uint8_t *x = arena + INPUT;
  uint16_t *queue = (uint16_t *)(void *)(arena + QUEUE);
  int32_t n = 0;
  (void)sops;
#ifdef TEST_OVERFLOW
#if defined(__riscv)
  __asm__ volatile("1: addi sp, sp, -16\n sw ra, 0(sp)\n j 1b");
#else
  __asm__ volatile("1: push {r0-r7}\n b 1b");
#endif
#endif
#ifdef TEST_SPIN
  uint32_t turns = TEST_SPIN; /* two instructions each */
#if defined(__riscv)
  __asm__ volatile("1: addi %0, %0, -1\n bnez %0, 1b" : "+r"(turns));
#else
  __asm__ volatile(".syntax unified\n1: subs %0, %0, #1\n bne 1b" : "+l"(turns) : : "cc");
#endif
#endif
  for (uint32_t i = 0; i < PIXELS; ++i) {
    if (1 + (255 - x[i]) / 64 == t) {
      queue[n++] = (uint16_t)i;
    }
  }
  return n;
}
#else
/* The queue of the events that were pushed. */
static void collect(uint8_t *arena) {
  uint16_t *queue = (uint16_t *)(void *)(arena + QUEUE);
  for (uint32_t i = 0; i < PIXELS; ++i) {
    if (arena[INPUT + i] != 0u) {
      *queue++ = (uint16_t)i;
    }
  }
}
#endif

static int32_t decide(uint8_t *arena, int32_t t, uint32_t *sops) {
  const uint16_t *queue = (const uint16_t *)(void *)(arena + QUEUE);
  int32_t *u = (int32_t *)(void *)(arena + OUTPUT);
  uint32_t n = *(const uint32_t *)(void *)(arena + COUNTS);
  int32_t best = 0;
#ifdef TEST_EVENT_INPUT
  collect(arena);
#endif
#ifdef TEST_HANG /* in every so manieth inference since boot */
  static uint32_t inferences;
  if (t == 1 && ++inferences == TEST_HANG) {
    for (;;) {
    }
  }
#endif
  for (uint32_t k = 0; k < CLASSES; ++k) {
    if (t == 1) {
      u[k] = 0;
    }
    for (uint32_t i = 0; i < n; ++i) {
      u[k] += (int32_t)((queue[i] * 7u + k * 13u) % 17u) - 8;
    }
    if (u[k] > u[best]) {
      best = (int32_t)k;
    }
  }
  *sops += n * CLASSES;
#ifdef TEST_MEMBRANES
  static const int32_t fixed[CLASSES] = {TEST_MEMBRANES};
  best = 0;
  for (uint32_t k = 0; k < CLASSES; ++k) {
    u[k] = fixed[k];
    best = u[k] > u[best] ? (int32_t)k : best;
  }
#endif
#ifdef TEST_CRASH
  __builtin_trap(); /* no board has the same address empty */
#endif
  return u[best] >= TEST_THRESHOLD ? best + 1 : -(best + 1);
}

static const esnn_node nodes[2] = {
#ifdef TEST_EVENT_INPUT
    {"input", 0, INPUT, PIXELS, PIXELS, ESNN_NODE_INPUT, 8u, 1u, 0u, 1u, 1u},
#else
    {"encoder", encode, QUEUE, PIXELS, PIXELS, ESNN_NODE_ENCODER, 0u, 1u, 0u, 1u, 1u},
#endif
    {"output", decide, QUEUE, 0u, CLASSES, ESNN_NODE_OUTPUT, 0u, CLASSES, 0u, 1u, 1u}};

const esnn_model esnn_model_data = {
    .api_version = ESNN_API_VERSION,
    .id = {0xA0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .name = "test-model",
    .nodes = nodes,
    .node_count = 2u,
    .timesteps = 4u,
    .classes = CLASSES,
#ifdef TEST_EVENT_INPUT
    .input_bytes = 0u,
#else
    .input_bytes = PIXELS,
#endif
    .input_offset = INPUT,
    .event_bytes = 2u,
    .output_bytes = 4u,
    .output_offset = OUTPUT,
    .stats_offset = STATS,
#ifdef TEST_CRASH_EARLY /* in esnn_init */
    .counts_offset = COUNTS + 0x10000000u,
#else
    .counts_offset = COUNTS,
#endif
    .arena_bytes = 2456u};

#ifdef TEST_STREAM
#ifdef TEST_EVENT_INPUT
const esnn_stream_model esnn_stream_data = {.refractory = 2u, .step_us = 1000u};
#else
static const uint8_t background[CLASSES] = {1u};

const esnn_stream_model esnn_stream_data = {
    .background = background,
    .sample_bytes = 28u,
    .row_bytes = 28u,
    .rows = 28u,
    .hop = 5u,
    .smooth = 3u,
    .votes = 2u,
    .refractory = 1u,
    .memory_bytes = ESNN_MODEL_STREAM_BYTES};
#endif
#endif

/* Firmware: one model behind the serial protocol of docs/FORMAT.md. */
#include "bsp.h"
#include "esnn.h"
#include "esnn_link.h"
#include "model.h" /* esnn_model_data, ESNN_MODEL_ARENA_BYTES; of a stream ESNN_MODEL_STREAM, see esnn_stream.h */

#if defined(ESNN_MODEL_STREAM) != defined(ESNN_LINK_STREAM)
#error "the link has streams (ESNN_LINK_STREAM) where the model has one"
#endif

static uint64_t arena[(ESNN_MODEL_ARENA_BYTES + 7u) / 8u];
static esnn_ctx ctx;
static esnn_link serial;
#ifdef ESNN_MODEL_STREAM
/* A stream of events needs none; C has no empty array. */
static uint64_t stream_memory[ESNN_MODEL_STREAM_BYTES == 0u ? 1u : (ESNN_MODEL_STREAM_BYTES + 7u) / 8u];
static esnn_stream stream;
#endif

#ifdef BSP_WATCHDOG_MS
/* The link reads the counter after every step of the model at the latest: a sign of life. */
static uint32_t ticks(void) {
  bsp_watchdog_kick();
  return bsp_ticks();
}
#else
#define ticks bsp_ticks
#endif

static const esnn_link_port port = {bsp_ticks_start, ticks, bsp_stack_used, BSP_COUNTER_HZ, BSP_STACK_BYTES};

static void send(uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    bsp_uart_put(serial.out[i]);
  }
}

/* Nothing can be served any more: say why to whoever asks. */
static void repeat(uint32_t count) {
  for (;;) {
    send(count);
    while (bsp_uart_get() != 0u) {
    }
  }
}

void bsp_on_fault(const uint32_t *words, uint32_t count) {
#ifdef BSP_WATCHDOG_MS
  bsp_watchdog_start(); /* the fault may have come before main did that */
#endif
  bsp_uart_put(0u); /* ends the frame that the fault may have cut short */
#ifdef BSP_WATCHDOG_MS
  send(esnn_link_fault(&serial, words, count));
  for (;;) { /* until the watchdog bites: who waits for bytes kicks it */
  }
#else
  repeat(esnn_link_fault(&serial, words, count));
#endif
}

int main(void) {
  int32_t status = esnn_init(&ctx, &esnn_model_data, arena, sizeof arena);
  esnn_link_init(&serial, &ctx, &port);
#ifdef ESNN_MODEL_STREAM
  if (status >= 0) {
    status = esnn_stream_init(&stream, &esnn_stream_data, &ctx, stream_memory, sizeof stream_memory);
  }
  esnn_link_bind(&serial, &stream);
#endif
  uint32_t count = esnn_link_banner(&serial, &esnn_model_data, status);
  if (status < 0) {
    repeat(count);
  }
  send(count);
  bsp_watchdog_start();
  for (;;) {
    bsp_watchdog_kick();
    send(esnn_link_receive(&serial, bsp_uart_get()));
  }
}

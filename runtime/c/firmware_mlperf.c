/* Firmware: one model behind MLPerf Tiny's serial protocol, docs/MLPERF-TINY.md. Linked with --wrap=bsp_wait. */
#include "bsp.h"
#include "esnn.h"
#include "esnn_mlperf.h"
#include "model.h" /* esnn_model_data, ESNN_MODEL_ARENA_BYTES, ESNN_MODEL_INPUT_BYTES */

#if ESNN_MODEL_INPUT_BYTES == 0u
#error "the protocol loads frames of samples; this model takes events"
#endif

static uint64_t arena[(ESNN_MODEL_ARENA_BYTES + 7u) / 8u];
static uint32_t frame[(ESNN_MODEL_INPUT_BYTES + 3u) / 4u]; /* words, so that it is copied by words */
static esnn_ctx ctx;
static esnn_mlperf serial;

/* The counter is read wherever time passes, so the watchdog is kicked there. */
static uint32_t ticks(void) {
  bsp_watchdog_kick();
  return bsp_ticks();
}

static const esnn_mlperf_port port = {bsp_uart_put, ticks, BSP_COUNTER_HZ, BSP_BOARD};

/* In place of any board's bsp_wait: asleep, nobody would see the counter wrap. */
void __wrap_bsp_wait(void);
void __wrap_bsp_wait(void) { esnn_mlperf_poll(&serial); }

/* At once, and after every command that comes; with a watchdog once, until it bites. */
void bsp_on_fault(const uint32_t *words, uint32_t count) {
  serial.port = &port; /* the fault may have come before main did that */
#ifdef BSP_WATCHDOG_MS
  bsp_watchdog_start(); /* nor that */
  static uint32_t told; /* some watchdogs interrupt what they are about to reset */
  if (told == 0u) {
    told = 1u;
    esnn_mlperf_fault(&serial, words, count);
  }
  for (;;) {
  }
#else
  for (;;) {
    esnn_mlperf_fault(&serial, words, count);
    while (bsp_uart_get() != (uint8_t)'%') {
    }
  }
#endif
}

int main(void) {
  bsp_ticks_start();
  int32_t status = esnn_init(&ctx, &esnn_model_data, arena, sizeof arena);
  esnn_mlperf_init(&serial, &ctx, &esnn_model_data, (uint8_t *)frame, &port);
  esnn_mlperf_start(&serial, status);
  bsp_watchdog_start();
  for (;;) {
    esnn_mlperf_receive(&serial, bsp_uart_get());
  }
}

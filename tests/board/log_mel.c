/* A firmware of its own around a log-mel front end: one line a row, its values, then what it took in ticks of
 * the counter; then "end". */
#include "bsp.h"
#include "model.h"
#include "say.h"

#define ROWS 8u

static int16_t ring[256];
static int32_t work[256];
static uint8_t row[32];

int main(void) {
  const esnn_log_mel *front = esnn_stream_data.log_mel;
  uint32_t state = 1u;
  for (uint32_t r = 0u; r < ROWS; ++r) {
    for (uint32_t i = 0u; i < front->frame; ++i) { /* ever louder noise */
      state = 1664525u * state + 1013904223u;
      ring[i] = (int16_t)((int32_t)(state >> 16) - 32768);
      ring[i] = (int16_t)(ring[i] / (1 << (2u * (ROWS - 1u - r))));
    }
    bsp_ticks_start();
    front->row(front, ring, r, work, row);
    uint32_t ticks = bsp_ticks();
    for (uint32_t b = 0u; b < front->bands; ++b) {
      put_number(row[b]);
    }
    put_number(ticks);
    bsp_uart_put((uint8_t)'\n');
  }
  put_text("end\n");
  return 0;
}

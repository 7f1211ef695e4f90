/* MLPerf Tiny's protocol on a pipe: standard input to standard output, one byte at a time.
 * Arguments: Hz of the counter, ticks that pass whenever it is read, ticks that pass at every '\n' received. */
#include <stdio.h>
#include <stdlib.h>

#include "esnn.h"
#include "esnn_mlperf.h"
#include "model.h"

static uint64_t arena[(ESNN_MODEL_ARENA_BYTES + 7u) / 8u];
static uint32_t at;
static uint32_t per_reading;

static void send(uint8_t byte) { putchar(byte); }

static uint32_t ticks(void) {
  at += per_reading;
  return at;
}

static uint32_t argument(char **argv, int i) { return (uint32_t)strtoul(argv[i], NULL, 10); }

int main(int argc, char **argv) {
  esnn_ctx ctx = {0};
  esnn_mlperf self;
  if (argc != 4) {
    return 2;
  }
  const esnn_mlperf_port port = {send, ticks, argument(argv, 1), "a board"};
  per_reading = argument(argv, 2);
  esnn_model model = esnn_model_data;
#ifdef TEST_FRAME_BYTES /* to be loaded, not to be run */
  model.input_bytes = TEST_FRAME_BYTES;
#endif
  uint8_t *frame = malloc(model.input_bytes); /* so that a byte too far is noticed */
  int32_t status = esnn_init(&ctx, &model, arena, sizeof arena);
  esnn_mlperf_init(&self, &ctx, &model, frame, &port);
  esnn_mlperf_start(&self, status);
  for (int byte = getchar(); byte != EOF; byte = getchar()) {
    if (byte == '\n') {
      at += argument(argv, 3);
      esnn_mlperf_poll(&self);
    }
    esnn_mlperf_receive(&self, (uint8_t)byte);
  }
  free(frame);
  return 0;
}

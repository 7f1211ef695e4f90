/* The serial protocol on a pipe: standard input to standard output, one byte at a time. */
#include <stdio.h>

#include "esnn.h"
#include "esnn_link.h"
#include "model.h"

static uint64_t arena[(ESNN_MODEL_ARENA_BYTES + 7u) / 8u];
static uint32_t ticks;

static void ticks_start(void) { ticks = 0u; }
static uint32_t ticks_now(void) { return ++ticks; }
static uint32_t stack_used(void) { return 123u; }

static void send(const esnn_link *link, uint32_t count) {
  fwrite(link->out, 1u, count, stdout);
  fflush(stdout);
}

int main(int argc, char **argv) {
  static const esnn_link_port port = {ticks_start, ticks_now, stack_used, 25000000u, 4096u};
  esnn_ctx ctx;
  esnn_link link;
  if (argc > 1) { /* CRC-32 of a file */
    uint8_t bytes[4096];
    FILE *file = fopen(argv[1], "rb");
    if (file == NULL) {
      return 1;
    }
    printf("%u\n", (unsigned)esnn_link_crc32(bytes, (uint32_t)fread(bytes, 1u, sizeof bytes, file)));
    return fclose(file);
  }
  int32_t status = esnn_init(&ctx, &esnn_model_data, arena, sizeof arena);
  esnn_link_init(&link, &ctx, &port);
#ifdef TEST_STREAM
  static uint64_t memory[ESNN_MODEL_STREAM_BYTES / 8u + 1u];
  esnn_stream stream;
  if (esnn_stream_init(&stream, &esnn_stream_data, &ctx, memory, sizeof memory) < 0) {
    return 1;
  }
  esnn_link_bind(&link, &stream);
#endif
  send(&link, esnn_link_banner(&link, &esnn_model_data, status));
  for (int byte = getchar(); byte != EOF; byte = getchar()) {
    send(&link, esnn_link_receive(&link, (uint8_t)byte));
  }
  return 0;
}

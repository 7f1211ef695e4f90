#include <@{library}.h>

static uint64_t arena[(@{macro}_ARENA_BYTES + 7u) / 8u];
static uint64_t memory[(@{macro}_STREAM_BYTES + 7u) / 8u];
static esnn_ctx ctx;
static esnn_stream stream;

/* At the start. */
static int32_t begin(void) {
  int32_t status = esnn_init(&ctx, &@{library}_model, arena, sizeof arena);
  return status < 0 ? status : esnn_stream_init(&stream, &@{library}_stream, &ctx, memory, sizeof memory);
}

/* The signal in any portions, as it comes. */
static int32_t feed(const uint8_t *signal, size_t bytes) {
  int32_t status = ESNN_OK;
  while (bytes > 0 && status >= 0) {
    size_t used = 0;
    esnn_stream_decision decision;
    status = esnn_stream_push(&stream, signal, bytes, &used);
    signal += used;
    bytes -= used;
    if (status == ESNN_DUE) status = esnn_stream_classify(&stream); /* a window is complete */
    if (status == ESNN_DECIDED) status = esnn_stream_result(&stream, &decision);
    /* decision.label; decision.detected says whether it is to be reported */
  }
  return status;
}

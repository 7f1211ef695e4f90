#include <@{library}.h>

static uint64_t arena[(@{macro}_ARENA_BYTES + 7u) / 8u];
static esnn_ctx ctx;
static esnn_stream stream;

/* At the start; a stream of events needs no memory of its own. */
static int32_t begin(void) {
  static uint64_t none[1];
  int32_t status = esnn_init(&ctx, &@{library}_model, arena, sizeof arena);
  return status < 0 ? status : esnn_stream_init(&stream, &@{library}_stream, &ctx, none, sizeof none);
}

/* One event as it comes; ESNN_DECIDED where esnn_stream_result has a new decision. */
static int32_t feed(uint64_t time_us, uint32_t address) {
  int32_t status, decided = ESNN_OK;
  while ((status = esnn_stream_event(&stream, time_us, address)) == ESNN_DUE) {
    status = esnn_stream_step(&stream); /* the event belongs to a later step */
    if (status < 0) return status;
    if (status == ESNN_DECIDED) decided = status;
  }
  return status < 0 ? status : decided;
}

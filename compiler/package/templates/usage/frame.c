#include <@{library}.h>

static uint64_t arena[(@{macro}_ARENA_BYTES + 7u) / 8u];
static esnn_ctx ctx;

/* The class of @{macro}_INPUT_BYTES bytes of samples, or a negative ESNN_ERR_ code. */
static int32_t classify(const void *samples) {
  esnn_decision answer;
  int32_t status = esnn_init(&ctx, &@{library}_model, arena, sizeof arena);
  if (status >= 0) status = esnn_push_frame(&ctx, samples, @{macro}_INPUT_BYTES);
  if (status >= 0) status = esnn_run(&ctx); /* stops as soon as there is an answer */
  if (status >= 0) status = esnn_result(&ctx, &answer);
  return status < 0 ? status : (int32_t)answer.label;
}

#include <@{library}.h>

static uint64_t arena[(@{macro}_ARENA_BYTES + 7u) / 8u];
static esnn_ctx ctx; /* once: esnn_init(&ctx, &@{library}_model, arena, sizeof arena) */

/* Once for every timestep, with its events: the class as soon as there is an answer, -1 before, else an error. */
static int32_t step(const uint32_t *addresses, size_t count) {
  esnn_decision answer;
  int32_t status = esnn_push_events(&ctx, addresses, count);
  if (status >= 0) status = esnn_step(&ctx);
  if (status == ESNN_OK) return -1;
  if (status >= 0) status = esnn_result(&ctx, &answer);
  return status < 0 ? status - 1 : (int32_t)answer.label;
}

/* Runs a generated model on the inputs of a golden trace: one inference a block of standard input, one line each. */
#include <inttypes.h>
#include <stdio.h>

#include "model.h"


static uint64_t arena[(ESNN_MODEL_ARENA_BYTES + 7u) / 8u];
static esnn_ctx ctx;
static uint8_t input[65536];
static uint32_t addresses[65536];

static int32_t infer(size_t bytes) {
  const esnn_model *model = &esnn_model_data;
  if (model->input_bytes != 0u) {
    int32_t status = esnn_push_frame(&ctx, input, bytes);
    return status < 0 ? status : esnn_run(&ctx);
  }
  size_t size = bytes / model->timesteps;
  int32_t status = esnn_reset(&ctx);
  for (uint32_t t = 0u; status == ESNN_OK && t < model->timesteps; t++) {
    size_t count = 0u;
    for (size_t i = 0u; i < size; i++) {
      if (input[t * size + i] != 0u) addresses[count++] = (uint32_t)i;
    }
    status = esnn_push_events(&ctx, addresses, count);
    if (status >= 0) status = esnn_step(&ctx);
  }
  return status;
}

int main(int argc, char **argv) {
  size_t bytes = 0u;
  if (argc != 2 || sscanf(argv[1], "%zu", &bytes) != 1 || bytes > sizeof input) return 2;
  if (esnn_init(&ctx, &esnn_model_data, arena, sizeof arena) < 0) return 3;
  while (fread(input, 1u, bytes, stdin) == bytes) {
    esnn_decision d;
    if (infer(bytes) < 0 || esnn_result(&ctx, &d) < 0) return 4;
    printf("%" PRIu32 " %" PRIu32 " %" PRIu32, d.label, d.step, d.exited);
    for (uint32_t k = 0u; k < esnn_model_data.classes; k++) {
      int32_t u = 0;
      if (esnn_membrane(&ctx, k, &u) < 0) return 5;
      printf(" %" PRId32, u);
    }
    printf("\n");
  }
  return 0;
}

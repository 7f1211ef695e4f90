/* A firmware of its own around a model of signed spikes: frames enter the pipeline as soon as the encoder is free.
 * One line a decision: class, stopping step, steps since the start; then "end". */
#include "bsp.h"
#include "model.h"
#include "say.h"

#define FRAMES 12u

static uint64_t arena[(ESNN_MODEL_ARENA_BYTES + 7u) / 8u];
static uint8_t frame[ESNN_MODEL_INPUT_BYTES];
static esnn_ctx ctx;

static void fill_frame(uint32_t state) {
  for (uint32_t i = 0u; i < ESNN_MODEL_INPUT_BYTES; ++i) {
    state = 1664525u * state + 1013904223u;
    frame[i] = (uint8_t)(state >> 24);
  }
}

int main(void) {
  uint32_t pushed = 0u, decided = 0u, steps = 0u;
  esnn_decision decision;
  (void)esnn_init(&ctx, &esnn_model_data, arena, sizeof arena);
  while (decided < FRAMES) {
    if (pushed < FRAMES) {
      fill_frame(pushed + 1u);
      if (esnn_push_next(&ctx, frame, sizeof frame) == ESNN_OK) {
        ++pushed;
      }
    }
    ++steps;
    if (esnn_step(&ctx) == ESNN_DECIDED) {
      ++decided;
      (void)esnn_result(&ctx, &decision);
      put_number(decision.label);
      put_number(decision.step);
      put_number(steps);
      bsp_uart_put((uint8_t)'\n');
    }
  }
  put_text("end\n");
  return 0;
}

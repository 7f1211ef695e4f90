/* The few entry points that the Python host engine calls; not part of a firmware. */

#include "esnn.h"

extern const esnn_model esnn_model_data;

size_t esnn_host_context_bytes(void);
const esnn_model *esnn_host_model(void);
int32_t esnn_host_outcome(const esnn_ctx *ctx, esnn_decision *decision, int32_t *membranes, esnn_stats *stats);
int32_t esnn_host_queue(const esnn_ctx *ctx, uint32_t *events, uint32_t capacity);

/* Bytes of an esnn_ctx. */
size_t esnn_host_context_bytes(void) { return sizeof(esnn_ctx); }

const esnn_model *esnn_host_model(void) { return &esnn_model_data; }

/* Everything about a finished inference at once. */
int32_t esnn_host_outcome(const esnn_ctx *ctx, esnn_decision *decision, int32_t *membranes, esnn_stats *stats) {
  int32_t status = esnn_result(ctx, decision);
  uint32_t i;
  for (i = 0; status == ESNN_OK && i < ctx->model->classes; ++i) {
    status = esnn_membrane(ctx, i, &membranes[i]);
  }
  for (i = 0; status == ESNN_OK && i < ctx->model->node_count; ++i) {
    status = esnn_node_stats(ctx, i, &stats[i]);
  }
  return status;
}

/* Events of the node run last: returns their number. */
int32_t esnn_host_queue(const esnn_ctx *ctx, uint32_t *events, uint32_t capacity) {
  uint32_t i;
  if (ctx->last_count > capacity) {
    return ESNN_ERR_MEMORY;
  }
  for (i = 0; i < ctx->last_count; ++i) {
    (void)esnn_event(ctx, i, &events[i]);
  }
  return (int32_t)ctx->last_count;
}

/* The few entry points that the Python host engine calls; not part of a firmware. */

#include "esnn.h"

extern const esnn_model esnn_model_data;

size_t esnn_host_context_bytes(void);
void esnn_host_shape(uint32_t *shape);
const esnn_model *esnn_host_model(void);
int32_t esnn_host_outcome(const esnn_ctx *ctx, esnn_decision *decision, int32_t *membranes, esnn_stats *stats);
int32_t esnn_host_queue(esnn_ctx *ctx, uint32_t *events, uint32_t capacity);

/* Bytes of an esnn_ctx. */
size_t esnn_host_context_bytes(void) { return sizeof(esnn_ctx); }

const esnn_model *esnn_host_model(void) { return &esnn_model_data; }

/* What the caller's buffers and the manifest have to agree with, and the first words of the model's id. */
void esnn_host_shape(uint32_t *shape) {
  const esnn_model *m = &esnn_model_data;
  uint32_t i;
  shape[0] = m->arena_bytes;
  shape[1] = m->input_bytes;
  shape[2] = m->classes;
  shape[3] = m->node_count;
  shape[4] = m->timesteps;
  shape[5] = 0;
  for (i = 0; i < m->node_count; ++i) {
    if (m->nodes[i].queue_capacity > shape[5]) {
      shape[5] = m->nodes[i].queue_capacity;
    }
  }
  for (i = 0; i < 4; ++i) {
    const uint8_t *id = m->id + 4 * i;
    shape[6 + i] = (uint32_t)id[0] | (uint32_t)id[1] << 8 | (uint32_t)id[2] << 16 | (uint32_t)id[3] << 24;
  }
}

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
int32_t esnn_host_queue(esnn_ctx *ctx, uint32_t *events, uint32_t capacity) {
  uint32_t i;
  if (ctx->last_count > capacity) {
    return ESNN_ERR_MEMORY;
  }
  for (i = 0; i < ctx->last_count; ++i) {
    (void)esnn_event(ctx, i, &events[i]);
  }
  return (int32_t)ctx->last_count;
}

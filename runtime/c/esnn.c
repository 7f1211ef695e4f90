/* edgesnn C core, see esnn.h. */
#include "esnn.h"

#include <string.h>

/* No context, or one that esnn_init has not bound to a model. */
static int esnn_unbound(const esnn_ctx *ctx) { return ctx == NULL || ctx->model == NULL; }

static uint32_t *esnn_counts(const esnn_ctx *ctx) {
  return (uint32_t *)(void *)(ctx->arena + ctx->model->counts_offset);
}

static esnn_stats *esnn_all_stats(const esnn_ctx *ctx) {
  return (esnn_stats *)(void *)(ctx->arena + ctx->model->stats_offset);
}

static uint32_t esnn_read_event(const uint8_t *queue, uint32_t width, uint32_t i) {
  if (width == 2u) {
    return ((const uint16_t *)(const void *)queue)[i];
  }
  return ((const uint32_t *)(const void *)queue)[i];
}

static void esnn_write_event(uint8_t *queue, uint32_t width, uint32_t i, uint32_t address) {
  if (width == 2u) {
    ((uint16_t *)(void *)queue)[i] = (uint16_t)address;
  } else {
    ((uint32_t *)(void *)queue)[i] = address;
  }
}

/* Empty the input queue; its events name the bits of the bitmap that are set. */
static void esnn_clear_input(esnn_ctx *ctx) {
  const esnn_model *model = ctx->model;
  uint8_t *bitmap = ctx->arena + model->input_offset;
  const uint8_t *queue = ctx->arena + model->nodes[0].queue_offset;
  uint32_t n = esnn_counts(ctx)[0];
  uint32_t i;
  for (i = 0; i < n; ++i) {
    bitmap[esnn_read_event(queue, model->event_bytes, i) >> 3] = 0;
  }
  esnn_counts(ctx)[0] = 0;
}

int32_t esnn_reset(esnn_ctx *ctx) {
  uint32_t n;
  if (esnn_unbound(ctx)) {
    return ESNN_ERR_ARGUMENT;
  }
  n = ctx->model->node_count;
  if (ctx->model->input_bytes == 0) {
    memset(ctx->arena + ctx->model->input_offset, 0, (ctx->model->nodes[0].neurons + 7u) / 8u);
  }
  memset(ctx->arena + ctx->model->counts_offset, 0, n * sizeof(uint32_t));
  memset(ctx->arena + ctx->model->stats_offset, 0, n * sizeof(esnn_stats));
  ctx->filled = 0;
  ctx->step = 0;
  ctx->node = 0;
  ctx->last_count = 0;
  ctx->last_node = 0;
  ctx->label = -1;
  ctx->exited = 0;
  return ESNN_OK;
}

int32_t esnn_init(esnn_ctx *ctx, const esnn_model *model, void *arena, size_t arena_bytes) {
  if (ctx == NULL || model == NULL || arena == NULL) {
    return ESNN_ERR_ARGUMENT;
  }
  if (model->api_version != ESNN_API_VERSION) {
    return ESNN_ERR_VERSION;
  }
  if (arena_bytes < model->arena_bytes || ((uintptr_t)arena & 7u) != 0) {
    return ESNN_ERR_MEMORY;
  }
  ctx->model = model;
  ctx->arena = (uint8_t *)arena;
  return esnn_reset(ctx);
}

int32_t esnn_push_part(esnn_ctx *ctx, size_t offset, const void *samples, size_t bytes) {
  if (esnn_unbound(ctx) || samples == NULL) {
    return ESNN_ERR_ARGUMENT;
  }
  if (ctx->model->input_bytes == 0) {
    return ESNN_ERR_INPUT;
  }
  if (offset > ctx->model->input_bytes || bytes > ctx->model->input_bytes - offset) {
    return ESNN_ERR_ARGUMENT;
  }
  if (offset == 0) {
    (void)esnn_reset(ctx);
  } else if (ctx->step != 0 || ctx->label >= 0) {
    return ESNN_ERR_STATE; /* the running inference already uses the frame's memory */
  } else if (offset != ctx->filled) {
    return ESNN_ERR_ARGUMENT;
  }
  memcpy(ctx->arena + ctx->model->input_offset + offset, samples, bytes);
  ctx->filled += (uint32_t)bytes;
  return ESNN_OK;
}

int32_t esnn_push_frame(esnn_ctx *ctx, const void *samples, size_t bytes) {
  if (esnn_unbound(ctx)) {
    return ESNN_ERR_ARGUMENT;
  }
  if (ctx->model->input_bytes == 0) {
    return ESNN_ERR_INPUT;
  }
  if (bytes != ctx->model->input_bytes) {
    return ESNN_ERR_ARGUMENT;
  }
  return esnn_push_part(ctx, 0, samples, bytes);
}

int32_t esnn_push_events(esnn_ctx *ctx, const uint32_t *addresses, size_t count) {
  const esnn_model *model;
  uint8_t *bitmap;
  uint32_t *queued;
  size_t i;
  if (esnn_unbound(ctx) || (addresses == NULL && count != 0)) {
    return ESNN_ERR_ARGUMENT;
  }
  model = ctx->model;
  if (model->input_bytes != 0) {
    return ESNN_ERR_INPUT;
  }
  for (i = 0; i < count; ++i) {
    if (addresses[i] >= model->nodes[0].neurons) {
      return ESNN_ERR_ARGUMENT;
    }
  }
  if (ctx->label >= 0) {
    (void)esnn_reset(ctx);
  } else if (ctx->node != 0) {
    return ESNN_ERR_STATE; /* in the middle of a step */
  }
  bitmap = ctx->arena + model->input_offset;
  queued = esnn_counts(ctx);
  for (i = 0; i < count; ++i) {
    uint32_t a = addresses[i];
    uint32_t bit = 1u << (a & 7u);
    if ((bitmap[a >> 3] & bit) == 0) {
      bitmap[a >> 3] = (uint8_t)(bitmap[a >> 3] | bit);
      esnn_write_event(ctx->arena + model->nodes[0].queue_offset, model->event_bytes, *queued, a);
      ++*queued;
    }
  }
  return ESNN_OK;
}

int32_t esnn_step_node(esnn_ctx *ctx) {
  const esnn_model *model;
  const esnn_node *node;
  uint32_t sops = 0;
  int32_t out;
  if (esnn_unbound(ctx)) {
    return ESNN_ERR_ARGUMENT;
  }
  model = ctx->model;
  if (ctx->label >= 0 || ctx->filled != model->input_bytes) {
    return ESNN_ERR_STATE;
  }
  if (ctx->node == 0) {
    ++ctx->step;
  }
  node = &model->nodes[ctx->node];
  out = node->run == NULL ? (int32_t)esnn_counts(ctx)[0] : node->run(ctx->arena, (int32_t)ctx->step, &sops);
  esnn_all_stats(ctx)[ctx->node].sops += sops;
  ctx->last_node = ctx->node;
  if (node->kind != ESNN_NODE_OUTPUT) {
    esnn_counts(ctx)[ctx->node] = (uint32_t)out;
    esnn_all_stats(ctx)[ctx->node].events += (uint32_t)out;
    ctx->last_count = (uint32_t)out;
    ++ctx->node;
    return ESNN_OK;
  }
  ctx->last_count = 0;
  ctx->node = 0;
  if (model->input_bytes == 0) {
    esnn_clear_input(ctx);
  }
  if (out > 0) {
    ctx->label = out - 1;
    ctx->exited = 1;
    return ESNN_DECIDED;
  }
  if (ctx->step == model->timesteps) {
    ctx->label = -out - 1;
    return ESNN_DECIDED;
  }
  return ESNN_OK;
}

int32_t esnn_step(esnn_ctx *ctx) {
  int32_t status;
  do {
    status = esnn_step_node(ctx);
  } while (status == ESNN_OK && ctx->node != 0);
  return status;
}

int32_t esnn_run(esnn_ctx *ctx) {
  int32_t status;
  do {
    status = esnn_step_node(ctx);
  } while (status == ESNN_OK);
  return status;
}

int32_t esnn_result(const esnn_ctx *ctx, esnn_decision *out) {
  if (esnn_unbound(ctx) || out == NULL) {
    return ESNN_ERR_ARGUMENT;
  }
  if (ctx->label < 0) {
    return ESNN_ERR_STATE;
  }
  out->label = (uint32_t)ctx->label;
  out->step = ctx->step;
  out->exited = ctx->exited;
  return ESNN_OK;
}

int32_t esnn_membrane(const esnn_ctx *ctx, uint32_t k, int32_t *out) {
  const uint8_t *u;
  if (esnn_unbound(ctx) || out == NULL || k >= ctx->model->classes) {
    return ESNN_ERR_ARGUMENT;
  }
  if (ctx->step == 0 || (ctx->step == 1 && ctx->node != 0)) {
    return ESNN_ERR_STATE; /* the output node has not run yet */
  }
  u = ctx->arena + ctx->model->output_offset;
  if (ctx->model->output_bytes == 2u) {
    *out = ((const int16_t *)(const void *)u)[k];
  } else {
    *out = ((const int32_t *)(const void *)u)[k];
  }
  return ESNN_OK;
}

int32_t esnn_event(const esnn_ctx *ctx, uint32_t i, uint32_t *out) {
  const esnn_model *model;
  if (esnn_unbound(ctx) || out == NULL || i >= ctx->last_count) {
    return ESNN_ERR_ARGUMENT;
  }
  model = ctx->model;
  *out = esnn_read_event(ctx->arena + model->nodes[ctx->last_node].queue_offset, model->event_bytes, i);
  return ESNN_OK;
}

int32_t esnn_node_stats(const esnn_ctx *ctx, uint32_t i, esnn_stats *out) {
  if (esnn_unbound(ctx) || out == NULL || i >= ctx->model->node_count) {
    return ESNN_ERR_ARGUMENT;
  }
  *out = esnn_all_stats(ctx)[i];
  return ESNN_OK;
}

const char *esnn_strerror(int32_t code) {
  switch (code) {
    case ESNN_OK:
      return "ok";
    case ESNN_DECIDED:
      return "decided";
    case ESNN_ERR_ARGUMENT:
      return "bad argument";
    case ESNN_ERR_MEMORY:
      return "arena too small or not aligned to 8 bytes";
    case ESNN_ERR_VERSION:
      return "model generated for another API version";
    case ESNN_ERR_STATE:
      return "not possible in this state";
    case ESNN_ERR_INPUT:
      return "wrong kind of input for this model";
    default:
      return "unknown code";
  }
}

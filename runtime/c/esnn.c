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

/* Words that a position takes in a spike map. */
static uint32_t esnn_words(const esnn_node *node) { return (node->channels + node->bits - 1u) / node->bits; }

static uint32_t esnn_read_word(const uint8_t *map, uint32_t bits, uint32_t i) {
  if (bits == 8u) {
    return map[i];
  }
  if (bits == 16u) {
    return ((const uint16_t *)(const void *)map)[i];
  }
  return ((const uint32_t *)(const void *)map)[i];
}

static void esnn_write_word(uint8_t *map, uint32_t bits, uint32_t i, uint32_t word) {
  if (bits == 8u) {
    map[i] = (uint8_t)word;
  } else if (bits == 16u) {
    ((uint16_t *)(void *)map)[i] = (uint16_t)word;
  } else {
    ((uint32_t *)(void *)map)[i] = word;
  }
}

/* No events yet in the step that runs next. */
static void esnn_clear_input(esnn_ctx *ctx) {
  const esnn_node *input = &ctx->model->nodes[0];
  size_t bytes = (size_t)(input->neurons / input->channels) * esnn_words(input) * (input->bits / 8u);
  memset(ctx->arena + ctx->model->input_offset, 0, bytes);
  esnn_counts(ctx)[0] = 0;
}

int32_t esnn_reset(esnn_ctx *ctx) {
  uint32_t n;
  if (esnn_unbound(ctx)) {
    return ESNN_ERR_ARGUMENT;
  }
  n = ctx->model->node_count;
  if (ctx->model->input_bytes == 0) {
    esnn_clear_input(ctx);
  }
  memset(ctx->arena + ctx->model->counts_offset, 0, n * sizeof(uint32_t));
  memset(ctx->arena + ctx->model->stats_offset, 0, n * sizeof(esnn_stats));
  ctx->filled = 0;
  ctx->step = 0;
  ctx->node = 0;
  ctx->last_count = 0;
  ctx->last_node = 0;
  ctx->newest = 0;
  ctx->oldest = 0;
  ctx->label = -1;
  ctx->decided_at = 0;
  ctx->exited = 0;
  ctx->done = 0;
  ctx->has_output = 0;
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
  } else if (ctx->step != 0 || ctx->done) {
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

int32_t esnn_push_next(esnn_ctx *ctx, const void *samples, size_t bytes) {
  uint32_t since;
  if (esnn_unbound(ctx) || samples == NULL) {
    return ESNN_ERR_ARGUMENT;
  }
  if (ctx->model->input_bytes == 0) {
    return ESNN_ERR_INPUT;
  }
  if (ctx->done || ctx->filled != ctx->model->input_bytes) {
    return esnn_push_frame(ctx, samples, bytes);
  }
  if (bytes != ctx->model->input_bytes) {
    return ESNN_ERR_ARGUMENT;
  }
  if (ctx->model->period == 0) {
    return ESNN_ERR_STATE;
  }
  /* Its window begins one period after that of the frame before, whose last digit goes out in step `coding`. */
  since = ctx->step - ctx->newest;
  if (ctx->node != 0 || since < ctx->model->coding || since > ctx->model->period) {
    return ESNN_ERR_STATE;
  }
  memcpy(ctx->arena + ctx->model->input_offset, samples, bytes);
  ctx->newest += ctx->model->period;
  return ESNN_OK;
}

int32_t esnn_push_events(esnn_ctx *ctx, const uint32_t *addresses, size_t count) {
  const esnn_model *model;
  const esnn_node *input;
  uint8_t *map;
  uint32_t words;
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
  if (ctx->done) {
    (void)esnn_reset(ctx);
  } else if (ctx->node != 0) {
    return ESNN_ERR_STATE; /* in the middle of a step */
  }
  input = &model->nodes[0];
  map = ctx->arena + model->input_offset;
  words = esnn_words(input);
  for (i = 0; i < count; ++i) {
    uint32_t position = addresses[i] / input->channels;
    uint32_t channel = addresses[i] - position * input->channels;
    uint32_t at = position * words + channel / input->bits;
    uint32_t bit = 1u << channel % input->bits;
    uint32_t word = esnn_read_word(map, input->bits, at);
    if ((word & bit) == 0) {
      esnn_write_word(map, input->bits, at, word | bit);
      ++esnn_counts(ctx)[0];
    }
  }
  return ESNN_OK;
}

/* Step before the first one of the frame that a node works on in this step. */
static uint32_t esnn_window(const esnn_ctx *ctx, const esnn_node *node) {
  uint32_t since;
  if (ctx->model->period == 0) {
    return 0;
  }
  since = ctx->step - node->start;
  return since - since % ctx->model->period;
}

/* Whether a node has anything to do in this step. */
static int esnn_works(const esnn_ctx *ctx, const esnn_node *node) {
  return ctx->step >= node->start && esnn_window(ctx, node) <= ctx->newest;
}

/* The output node has returned `out` for the frame that is decided next: ESNN_OK or ESNN_DECIDED. */
static int32_t esnn_decide(esnn_ctx *ctx, int32_t out) {
  uint32_t step = ctx->step - ctx->oldest;
  if (out <= 0 && step != ctx->model->timesteps) {
    return ESNN_OK;
  }
  ctx->label = out > 0 ? out - 1 : -out - 1;
  ctx->exited = out > 0;
  ctx->decided_at = step;
  if (ctx->oldest == ctx->newest) {
    ctx->done = 1;
  } else {
    ctx->oldest += ctx->model->period;
  }
  return ESNN_DECIDED;
}

/* Begin the next timestep. Steps of a pipeline are counted anew before they become too large to count. */
static void esnn_next_step(esnn_ctx *ctx) {
  uint32_t cycle = ctx->model->cycle;
  ++ctx->step;
  if (cycle != 0 && ctx->step > cycle + ctx->model->timesteps && ctx->oldest >= cycle) {
    ctx->step -= cycle;
    ctx->newest -= cycle;
    ctx->oldest -= cycle;
  }
}

int32_t esnn_step_node(esnn_ctx *ctx) {
  const esnn_model *model;
  const esnn_node *node;
  uint32_t sops = 0;
  int32_t out = 0;
  int works, decides;
  if (esnn_unbound(ctx)) {
    return ESNN_ERR_ARGUMENT;
  }
  model = ctx->model;
  if (ctx->done || ctx->filled != model->input_bytes) {
    return ESNN_ERR_STATE;
  }
  if (ctx->node == 0) {
    esnn_next_step(ctx);
  }
  node = &model->nodes[ctx->node];
  works = esnn_works(ctx, node);
  if (node->run == NULL) {
    out = (int32_t)esnn_counts(ctx)[0];
  } else if (works) {
    out = node->run(ctx->arena, (int32_t)ctx->step, &sops);
  }
  esnn_all_stats(ctx)[ctx->node].sops += sops;
  ctx->last_node = ctx->node;
  ctx->seek_event = 0;
  ctx->seek_bit = 0;
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
  if (!works) {
    return ESNN_OK;
  }
  ctx->has_output = 1;
  decides = esnn_window(ctx, node) == ctx->oldest; /* else that frame was decided early */
  return decides ? esnn_decide(ctx, out) : ESNN_OK;
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
  out->step = ctx->decided_at;
  out->exited = ctx->exited;
  return ESNN_OK;
}

int32_t esnn_membrane(const esnn_ctx *ctx, uint32_t k, int32_t *out) {
  const uint8_t *u;
  if (esnn_unbound(ctx) || out == NULL || k >= ctx->model->classes) {
    return ESNN_ERR_ARGUMENT;
  }
  if (!ctx->has_output) {
    return ESNN_ERR_STATE;
  }
  u = ctx->arena + ctx->model->output_offset;
  if (ctx->model->output_bytes == 2u) {
    *out = ((const int16_t *)(const void *)u)[k];
  } else {
    *out = ((const int32_t *)(const void *)u)[k];
  }
  return ESNN_OK;
}

int32_t esnn_event(esnn_ctx *ctx, uint32_t i, uint32_t *out) {
  const esnn_node *node;
  const uint8_t *map;
  uint32_t words, row;
  if (esnn_unbound(ctx) || out == NULL || i >= ctx->last_count) {
    return ESNN_ERR_ARGUMENT;
  }
  node = &ctx->model->nodes[ctx->last_node];
  map = ctx->arena + node->spikes_offset;
  if (node->bits == 0) {
    *out = esnn_read_event(map, ctx->model->event_bytes, i);
    return ESNN_OK;
  }
  map += (size_t)((ctx->step - 1u) % node->planes) * node->plane_bytes;
  if (i < ctx->seek_event) {
    ctx->seek_event = 0;
    ctx->seek_bit = 0;
  }
  words = esnn_words(node);
  row = words * node->bits; /* bits of a position */
  for (;;) {
    uint32_t at = ctx->seek_bit / node->bits;
    uint32_t rest = esnn_read_word(map, node->bits, at) >> ctx->seek_bit % node->bits;
    if (rest == 0) {
      ctx->seek_bit = (at + 1u) * node->bits;
      continue;
    }
    while ((rest & 1u) == 0) {
      rest >>= 1;
      ++ctx->seek_bit;
    }
    if (ctx->seek_event++ == i) {
      uint32_t position = ctx->seek_bit / row;
      *out = position * node->channels + (ctx->seek_bit - position * row);
      ++ctx->seek_bit;
      return ESNN_OK;
    }
    ++ctx->seek_bit;
  }
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

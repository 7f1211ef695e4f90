/* edgesnn C core: streams, see esnn_stream.h. */
#include "esnn_stream.h"

#include <string.h>

/* The memory of window mode, from its start: the front end's work, int32_t[points]; the labels that vote,
 * uint32_t[smooth]; the newest samples, int16_t[frame]; the newest rows. compiler/stream_plan.py counts it. */
typedef struct esnn_stream_parts {
  int32_t *work;
  uint32_t *labels;
  uint8_t *samples;
  uint8_t *rows;
} esnn_stream_parts;

static uint32_t esnn_frame_bytes(const esnn_stream_model *model) {
  return model->log_mel == NULL ? 0 : model->log_mel->frame * (uint32_t)sizeof(int16_t);
}

static esnn_stream_parts esnn_parts(const esnn_stream *stream) {
  const esnn_stream_model *model = stream->model;
  esnn_stream_parts parts;
  parts.work = (int32_t *)(void *)stream->memory;
  parts.labels = (uint32_t *)(void *)stream->memory;
  if (model->log_mel != NULL) {
    parts.labels += model->log_mel->points;
  }
  parts.samples = (uint8_t *)(void *)(parts.labels + model->smooth);
  parts.rows = parts.samples + esnn_frame_bytes(model);
  return parts;
}

/* ESNN_OK where a stream is bound to a model of that mode. */
static int32_t esnn_stream_check(const esnn_stream *stream, int continuous) {
  if (stream == NULL || stream->model == NULL) {
    return ESNN_ERR_ARGUMENT;
  }
  return (stream->model->step_us != 0) == continuous ? ESNN_OK : ESNN_ERR_INPUT;
}

int32_t esnn_stream_reset(esnn_stream *stream) {
  const esnn_stream_model *model;
  if (stream == NULL || stream->model == NULL) {
    return ESNN_ERR_ARGUMENT;
  }
  model = stream->model;
  stream->time = 0;
  stream->missing = model->log_mel == NULL ? model->row_bytes : esnn_frame_bytes(model);
  stream->sample_at = 0;
  stream->row_at = 0;
  stream->until = model->rows;
  stream->due = 0;
  stream->steps = 0;
  stream->labels = 0;
  stream->label_at = 0;
  stream->current = ESNN_STREAM_NONE;
  stream->hold = 0;
  stream->decided = 0;
  stream->fresh = 0;
  return esnn_reset(stream->ctx);
}

int32_t esnn_stream_init(esnn_stream *stream, const esnn_stream_model *model, esnn_ctx *ctx, void *memory,
                         size_t bytes) {
  if (stream == NULL || model == NULL || ctx == NULL || ctx->model == NULL) {
    return ESNN_ERR_ARGUMENT;
  }
  if ((model->step_us != 0) != (ctx->model->input_bytes == 0)) {
    return ESNN_ERR_INPUT;
  }
  if (model->step_us == 0 && model->rows * model->row_bytes != ctx->model->input_bytes) {
    return ESNN_ERR_ARGUMENT;
  }
  if (model->memory_bytes != 0 &&
      (memory == NULL || bytes < model->memory_bytes || ((uintptr_t)memory & 7u) != 0)) {
    return ESNN_ERR_MEMORY;
  }
  stream->model = model;
  stream->ctx = ctx;
  stream->memory = (uint8_t *)memory;
  return esnn_stream_reset(stream);
}

/* A row is complete; of sound it is computed. */
static void esnn_stream_row(esnn_stream *stream, const esnn_stream_parts *parts) {
  const esnn_stream_model *model = stream->model;
  const esnn_log_mel *front = model->log_mel;
  if (front == NULL) {
    ++stream->time;
    stream->missing = model->row_bytes;
  } else {
    front->row(front, (const int16_t *)(const void *)parts->samples, stream->sample_at / 2u, parts->work,
               parts->rows + stream->row_at);
    stream->row_at += model->row_bytes;
    if (stream->row_at == model->rows * model->row_bytes) {
      stream->row_at = 0;
    }
    stream->time += stream->time == 0 ? front->frame : front->hop;
    stream->missing = front->hop * (uint32_t)sizeof(int16_t);
  }
  if (--stream->until == 0) {
    stream->until = model->hop;
    stream->due = 1;
  }
}

int32_t esnn_stream_push(esnn_stream *stream, const void *signal, size_t bytes, size_t *used) {
  const uint8_t *from = (const uint8_t *)signal;
  int32_t status = esnn_stream_check(stream, 0);
  esnn_stream_parts parts;
  uint8_t *ring;
  uint32_t *at, size;
  size_t left = bytes;
  if (status < 0) {
    return status;
  }
  if (used == NULL || (signal == NULL && bytes != 0)) {
    return ESNN_ERR_ARGUMENT;
  }
  parts = esnn_parts(stream);
  if (stream->model->log_mel == NULL) {
    ring = parts.rows;
    at = &stream->row_at;
    size = stream->model->rows * stream->model->row_bytes;
  } else {
    ring = parts.samples;
    at = &stream->sample_at;
    size = esnn_frame_bytes(stream->model);
  }
  while (left != 0 && stream->due == 0) {
    uint32_t n = size - *at;
    if (n > stream->missing) {
      n = stream->missing;
    }
    if (n > left) {
      n = (uint32_t)left;
    }
    memcpy(ring + *at, from, n);
    *at = *at + n == size ? 0 : *at + n;
    from += n;
    left -= n;
    stream->missing -= n;
    if (stream->missing == 0) {
      esnn_stream_row(stream, &parts);
    }
  }
  *used = bytes - left;
  return stream->due != 0 ? ESNN_DUE : ESNN_OK;
}

int32_t esnn_stream_begin(esnn_stream *stream) {
  int32_t status = esnn_stream_check(stream, 0);
  const uint8_t *rows;
  uint32_t oldest;
  if (status < 0) {
    return status;
  }
  if (stream->due == 0) {
    return ESNN_ERR_STATE;
  }
  rows = esnn_parts(stream).rows;
  oldest = stream->ctx->model->input_bytes - stream->row_at; /* bytes from the oldest row to the ring's end */
  status = esnn_push_part(stream->ctx, 0, rows + stream->row_at, oldest);
  if (status == ESNN_OK) {
    status = esnn_push_part(stream->ctx, oldest, rows, stream->row_at);
  }
  if (status == ESNN_OK) {
    stream->due = 2;
  }
  return status;
}

/* The label that has the votes, or ESNN_STREAM_NONE. */
static uint32_t esnn_stream_vote(esnn_stream *stream, uint32_t label) {
  const esnn_stream_model *model = stream->model;
  uint32_t *labels = esnn_parts(stream).labels;
  uint32_t i, k, found = ESNN_STREAM_NONE, most = model->votes;
  labels[stream->label_at] = label;
  stream->label_at = stream->label_at + 1u == model->smooth ? 0 : stream->label_at + 1u;
  if (stream->labels < model->smooth) {
    ++stream->labels;
  }
  for (i = 0; i < stream->labels; ++i) {
    uint32_t votes = 0;
    for (k = 0; k < stream->labels; ++k) {
      votes += labels[k] == labels[i];
    }
    if (votes > most || (votes == most && labels[i] < found)) {
      most = votes;
      found = labels[i];
    }
  }
  return found;
}

int32_t esnn_stream_end(esnn_stream *stream) {
  int32_t status = esnn_stream_check(stream, 0);
  const uint8_t *background;
  esnn_decision decision = {0, 0, 0};
  uint32_t smoothed;
  int quiet;
  if (status < 0) {
    return status;
  }
  if (stream->due != 2u || !stream->ctx->done) {
    return ESNN_ERR_STATE;
  }
  status = esnn_result(stream->ctx, &decision);
  if (status < 0) {
    return status;
  }
  background = stream->model->background;
  smoothed = esnn_stream_vote(stream, decision.label);
  quiet = smoothed == ESNN_STREAM_NONE || (background != NULL && background[smoothed]);
  if (quiet || background == NULL) {
    stream->current = ESNN_STREAM_NONE;
  }
  stream->last.time = stream->time;
  stream->last.label = decision.label;
  stream->last.step = decision.step;
  stream->last.exited = decision.exited;
  stream->last.smoothed = smoothed;
  stream->last.detected = !quiet && smoothed != stream->current && stream->hold == 0;
  if (stream->last.detected) {
    stream->current = smoothed;
    stream->hold = stream->model->refractory;
  } else if (stream->hold != 0) {
    --stream->hold;
  }
  stream->decided = 1;
  stream->due = 0;
  return ESNN_DECIDED;
}

int32_t esnn_stream_classify(esnn_stream *stream) {
  int32_t status = esnn_stream_begin(stream);
  if (status == ESNN_OK) {
    status = esnn_run(stream->ctx);
  }
  return status == ESNN_DECIDED ? esnn_stream_end(stream) : status;
}

int32_t esnn_stream_event(esnn_stream *stream, uint64_t time_us, uint32_t address) {
  int32_t status = esnn_stream_check(stream, 1);
  if (status < 0) {
    return status;
  }
  if (time_us < stream->time) {
    return ESNN_ERR_ARGUMENT;
  }
  if (time_us - stream->time >= stream->model->step_us) {
    return ESNN_DUE;
  }
  return esnn_push_events(stream->ctx, &address, 1);
}

int32_t esnn_stream_advance(esnn_stream *stream, uint64_t until_us) {
  int32_t status = esnn_stream_check(stream, 1);
  if (status < 0) {
    return status;
  }
  return until_us >= stream->time && until_us - stream->time >= stream->model->step_us ? ESNN_DUE : ESNN_OK;
}

int32_t esnn_stream_step_node(esnn_stream *stream) {
  int32_t status = esnn_stream_check(stream, 1);
  const esnn_model *model;
  esnn_ctx *ctx;
  int decides;
  if (status < 0) {
    return status;
  }
  ctx = stream->ctx;
  model = ctx->model;
  if (ctx->node == 0) {
    if (stream->fresh) {
      memset(ctx->arena + model->output_offset, 0, (size_t)model->classes * model->output_bytes);
      memset(ctx->arena + model->stats_offset, 0, model->node_count * sizeof(esnn_stats));
      stream->fresh = 0;
    }
    /* Nodes only ask whether membranes begin: step 1 in the stream's first step, step 2 in all others. */
    ctx->step = ctx->has_output;
  } else if (stream->hold != 0 && ctx->node + 1u == model->node_count) {
    ctx->step = 0; /* before any node's first step: it is left out */
    --stream->hold;
  }
  status = esnn_step_node(ctx);
  if (status < 0) {
    return status;
  }
  decides = status == ESNN_DECIDED && ctx->exited; /* there is no last step that decides in any case */
  ctx->done = 0;
  if (ctx->node == 0) {
    ctx->step = 0; /* an inference in between begins at rest, and so it ends */
    stream->time += stream->model->step_us;
    ++stream->steps;
  }
  if (!decides) {
    return ESNN_OK;
  }
  stream->last.time = stream->time;
  stream->last.label = (uint32_t)ctx->label;
  stream->last.step = stream->steps;
  stream->last.exited = 1;
  stream->last.smoothed = stream->last.label;
  stream->last.detected = 1;
  stream->hold = stream->model->refractory;
  stream->decided = 1;
  stream->fresh = 1;
  return ESNN_DECIDED;
}

int32_t esnn_stream_step(esnn_stream *stream) {
  int32_t status;
  do {
    status = esnn_stream_step_node(stream);
  } while (status == ESNN_OK && stream->ctx->node != 0);
  return status;
}

int32_t esnn_stream_result(const esnn_stream *stream, esnn_stream_decision *out) {
  if (stream == NULL || stream->model == NULL || out == NULL) {
    return ESNN_ERR_ARGUMENT;
  }
  if (!stream->decided) {
    return ESNN_ERR_STATE;
  }
  *out = stream->last;
  return ESNN_OK;
}

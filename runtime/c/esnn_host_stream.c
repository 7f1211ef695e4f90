/* What the Python host engine calls of a model with a stream; not part of a firmware. */

#include "esnn_stream.h"

#define STEPS 512u /* that a call runs at most: Python hears of Ctrl-C between calls only, and a silence may be long */

extern const esnn_stream_model esnn_stream_data;

int32_t esnn_host_outcome(const esnn_ctx *ctx, esnn_decision *decision, int32_t *membranes, esnn_stats *stats);
void esnn_host_stream_shape(uint32_t *shape);
const esnn_stream_model *esnn_host_stream_model(void);
int32_t esnn_host_events(esnn_stream *stream, const int64_t *events, size_t count, size_t *used);
int32_t esnn_host_advance(esnn_stream *stream, uint64_t until_us);
int32_t esnn_host_stream_outcome(const esnn_stream *stream, esnn_stream_decision *decision, int32_t *membranes,
                                 esnn_stats *stats);

/* What the caller's buffers and the manifest have to agree with. */
void esnn_host_stream_shape(uint32_t *shape) {
  const esnn_stream_model *m = &esnn_stream_data;
  shape[0] = (uint32_t)sizeof(esnn_stream);
  shape[1] = m->memory_bytes;
  shape[2] = m->sample_bytes;
  shape[3] = m->rows;
  shape[4] = m->hop;
  shape[5] = m->smooth;
  shape[6] = m->votes;
  shape[7] = m->refractory;
  shape[8] = m->step_us;
}

const esnn_stream_model *esnn_host_stream_model(void) { return &esnn_stream_data; }

/* Pairs of microseconds and address, with the steps that they end: ESNN_DECIDED as soon as there is a decision,
 * ESNN_OK at the end or after STEPS; *used events are taken, the others are to come again. */
int32_t esnn_host_events(esnn_stream *stream, const int64_t *events, size_t count, size_t *used) {
  size_t i = 0;
  uint32_t steps = 0;
  int32_t status = ESNN_OK;
  while (i < count && status == ESNN_OK && steps < STEPS) {
    status = esnn_stream_event(stream, (uint64_t)events[2 * i], (uint32_t)events[2 * i + 1]);
    if (status == ESNN_OK) {
      ++i;
    } else if (status == ESNN_DUE) {
      status = esnn_stream_step(stream);
      ++steps;
    }
  }
  *used = i;
  return status;
}

/* The steps that end at or before a time, up to a decision: then ESNN_DECIDED; ESNN_DUE after STEPS. */
int32_t esnn_host_advance(esnn_stream *stream, uint64_t until_us) {
  int32_t status = esnn_stream_advance(stream, until_us);
  uint32_t steps;
  for (steps = 0; status == ESNN_DUE && steps < STEPS; ++steps) {
    status = esnn_stream_step(stream);
    if (status == ESNN_OK) {
      status = esnn_stream_advance(stream, until_us);
    }
  }
  return status;
}

/* Everything about the last decision at once. */
int32_t esnn_host_stream_outcome(const esnn_stream *stream, esnn_stream_decision *decision, int32_t *membranes,
                                 esnn_stats *stats) {
  esnn_decision of_network;
  int32_t status = esnn_stream_result(stream, decision);
  return status == ESNN_OK ? esnn_host_outcome(stream->ctx, &of_network, membranes, stats) : status;
}

/* The serial protocol's operations of streams, see esnn_link.h. */
#include "esnn_link.h"
#include "esnn_stream.h"

#define STEPS 64u /* that one request may run in continuous mode: the host is not left without an answer */

/* Flags of a response. */
#define DECIDED 1u
#define EXITED 2u
#define DETECTED 4u
#define MORE 8u /* stopped after STEPS steps */

static uint8_t *put64(uint8_t *at, uint64_t value) {
  return esnn_link_put32(esnn_link_put32(at, (uint32_t)(value & 0xFFFFFFFFu)), (uint32_t)(value >> 32));
}

static uint64_t get64(const uint8_t *at) {
  return (uint64_t)esnn_link_get32(at) | ((uint64_t)esnn_link_get32(at + 4) << 32);
}

/* Classify the window that is due. */
static int32_t classify(esnn_link_stream *at, const esnn_link_port *port) {
  port->ticks_start();
  int32_t code = esnn_stream_begin(at->stream);
  at->front_ticks += port->ticks();
  uint32_t network = 0u;
  port->ticks_start();
  while (code == ESNN_OK) { /* step by step, so that the counter is read before it can wrap unseen */
    code = esnn_step(at->stream->ctx);
    network = port->ticks();
  }
  at->network_ticks += network;
  if (code < 0) {
    return code;
  }
  port->ticks_start();
  code = esnn_stream_end(at->stream);
  at->front_ticks += port->ticks();
  return code;
}

/* Window mode: take bytes up to the first decision. */
static int32_t push(esnn_link_stream *at, const esnn_link_port *port, const uint8_t *in, uint32_t size,
                    uint32_t *taken) {
  const esnn_stream_model *model = at->stream->model;
  uint32_t front = 0u;
  int32_t code = ESNN_OK;
  port->ticks_start();
  while (code == ESNN_OK && *taken < size) {
    uint32_t part = size - *taken;
    if (model->log_mel != NULL && part > model->log_mel->hop * model->sample_bytes) {
      part = model->log_mel->hop * model->sample_bytes; /* one row at most until the counter is read */
    }
    size_t used = 0u;
    code = esnn_stream_push(at->stream, in + *taken, part, &used);
    *taken += (uint32_t)used;
    front = port->ticks();
  }
  at->front_ticks += front;
  return code == ESNN_DUE ? classify(at, port) : code;
}

/* Continuous mode: run the step that is over. */
static int32_t step(esnn_link_stream *at, const esnn_link_port *port) {
  port->ticks_start();
  int32_t code = esnn_stream_step(at->stream);
  at->network_ticks += port->ticks();
  return code;
}

/* Continuous mode: take events (or, without any, the time) up to the first decision. */
static int32_t events(esnn_link_stream *at, const esnn_link_port *port, const uint8_t *in, uint32_t size,
                      uint32_t *taken, uint32_t *flags) {
  uint64_t base = get64(in);
  uint32_t width = at->stream->ctx->model->event_bytes == 2u ? 2u : 4u;
  uint32_t count = (size - 8u) / (2u + width);
  uint32_t steps = 0u;
  for (;;) {
    int32_t code = ESNN_OK;
    port->ticks_start();
    if (count == 0u) {
      code = esnn_stream_advance(at->stream, base);
    }
    while (code == ESNN_OK && *taken < count) {
      const uint8_t *event = in + 8u + *taken * (2u + width);
      uint32_t address = width == 2u ? esnn_link_get16(event + 2) : esnn_link_get32(event + 2);
      code = esnn_stream_event(at->stream, base + esnn_link_get16(event), address);
      *taken += code == ESNN_OK ? 1u : 0u;
    }
    at->front_ticks += port->ticks();
    if (code != ESNN_DUE) {
      return code;
    }
    if (steps == STEPS) {
      *flags |= MORE;
      return ESNN_OK;
    }
    ++steps;
    code = step(at, port);
    if (code != ESNN_OK) {
      return code;
    }
  }
}

/* The last decision and as many output membranes as fit, behind the two bytes of every response. */
static uint32_t decision(esnn_link_stream *at, uint8_t *out, uint32_t *flags) {
  esnn_stream_decision last = {0u, 0u, 0u, 0u, ESNN_STREAM_NONE, 0u};
  (void)esnn_stream_result(at->stream, &last);
  *flags |= DECIDED | (last.exited != 0u ? EXITED : 0u) | (last.detected != 0u ? DETECTED : 0u);
  uint8_t *end = esnn_link_put16(out, last.label);
  end = esnn_link_put16(end, last.smoothed & 0xFFFFu); /* ESNN_STREAM_NONE becomes 0xFFFF */
  end = put64(end, last.time);
  end = esnn_link_put32(end, last.step);
  end = put64(end, at->front_ticks);
  end = put64(end, at->network_ticks);
  at->front_ticks = 0u;
  at->network_ticks = 0u;
  uint32_t used = 2u + (uint32_t)(end - out);
  for (uint32_t k = 0; k < at->stream->ctx->model->classes && used + 4u <= ESNN_LINK_PAYLOAD; ++k, used += 4u) {
    int32_t value;
    if (esnn_membrane(at->stream->ctx, k, &value) < 0) {
      break;
    }
    end = esnn_link_put32(end, (uint32_t)value);
  }
  return used;
}

/* Lengths that a request's payload may have. */
static int takes(const esnn_link_stream *at, uint32_t op, uint32_t size) {
  uint32_t event = at->stream->ctx->model->event_bytes == 2u ? 4u : 6u;
  switch (op) {
    case ESNN_LINK_STREAM_RESET:
      return size == 0u;
    case ESNN_LINK_STREAM_PUSH:
      return size > 0u;
    default: /* ESNN_LINK_STREAM_EVENTS */
      return size >= 8u && (size - 8u) % event == 0u;
  }
}

uint32_t esnn_link_stream_execute(esnn_link_stream *at, const esnn_link_port *port, uint32_t op, const uint8_t *in,
                                  uint32_t size, uint8_t *out, uint32_t *used) {
  uint32_t taken = 0u;
  uint32_t flags = 0u;
  int32_t code;
  if (op > ESNN_LINK_STREAM_EVENTS) {
    return ESNN_LINK_ERR_OP;
  }
  if (!takes(at, op, size)) {
    return ESNN_LINK_ERR_PAYLOAD;
  }
  if (op == ESNN_LINK_STREAM_RESET) {
    at->front_ticks = 0u;
    at->network_ticks = 0u;
    return esnn_link_core_status(esnn_stream_reset(at->stream));
  }
  code = op == ESNN_LINK_STREAM_PUSH ? push(at, port, in, size, &taken) : events(at, port, in, size, &taken, &flags);
  if (code < 0) {
    return esnn_link_core_status(code);
  }
  *used = code == ESNN_DECIDED ? decision(at, out + 2, &flags) : 2u;
  out[0] = (uint8_t)taken;
  out[1] = (uint8_t)flags;
  return ESNN_LINK_OK;
}

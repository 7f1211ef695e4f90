#include "esnn_link.h"

/* CRC-32 of the 16 nibbles: 64 bytes of flash instead of 1024, two look-ups per byte. */
static const uint32_t crc_nibble[16] = {
    0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
    0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
    0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};

uint32_t esnn_link_crc32(const uint8_t *bytes, uint32_t count) {
  uint32_t crc = 0xFFFFFFFFu;
  for (uint32_t i = 0; i < count; ++i) {
    crc ^= bytes[i];
    crc = crc_nibble[crc & 15u] ^ (crc >> 4);
    crc = crc_nibble[crc & 15u] ^ (crc >> 4);
  }
  return ~crc;
}

/* Finish the frame whose header and payload stand at frame[1]: CRC-32, COBS in place, 0x00. A body is shorter
 * than 254 bytes, so COBS adds exactly one code byte, for which frame[0] is free. */
static uint32_t seal(uint8_t *frame, uint32_t payload) {
  uint32_t body = ESNN_LINK_HEADER + payload;
  esnn_link_put32(frame + 1 + body, esnn_link_crc32(frame + 1, body));
  body += 4u;
  uint32_t code = 0;
  for (uint32_t i = 1; i <= body; ++i) {
    if (frame[i] == 0u) {
      frame[code] = (uint8_t)(i - code);
      code = i;
    }
  }
  frame[code] = (uint8_t)(body + 1u - code);
  frame[body + 1u] = 0u;
  return body + 2u;
}

static void head(uint8_t *frame, uint32_t sequence, uint32_t op, uint32_t status) {
  frame[1] = (uint8_t)ESNN_LINK_VERSION;
  frame[2] = (uint8_t)sequence;
  frame[3] = (uint8_t)op;
  frame[4] = (uint8_t)status;
}

static uint32_t notice(esnn_link *link, uint32_t sequence, uint32_t op, uint32_t status,
                       uint32_t payload) {
  head(link->notice, sequence, op, status);
  link->out = link->notice;
  return seal(link->notice, payload);
}

/* Decode `count` bytes of COBS in place. Returns the number of bytes, -1 where it is none. */
static int32_t unstuff(uint8_t *bytes, uint32_t count) {
  uint32_t from = 0;
  uint32_t to = 0;
  while (from < count) {
    uint32_t code = bytes[from];
    if (code == 0u || code > count - from) {
      return -1;
    }
    ++from;
    for (uint32_t i = 1; i < code; ++i) {
      bytes[to++] = bytes[from++];
    }
    if (code < 255u && from < count) {
      bytes[to++] = 0u;
    }
  }
  return (int32_t)to;
}

/* api version, widths, id, sizes, counter, session so far and name of the model: the payload of HELLO and of the
 * banner. */
static uint32_t describe(const esnn_link *link, const esnn_model *model, uint8_t *at) {
  const uint8_t *start = at;
  at = esnn_link_put16(at, model->api_version);
  *at++ = (uint8_t)model->event_bytes;
#ifdef ESNN_LINK_STREAM
  *at++ = (uint8_t)(model->output_bytes | ESNN_LINK_STREAMS);
#else
  *at++ = (uint8_t)model->output_bytes;
#endif
  for (uint32_t i = 0; i < 16u; ++i) {
    *at++ = model->id[i];
  }
  at = esnn_link_put32(at, model->input_bytes);
  at = esnn_link_put32(at, link->port->counter_hz);
  at = esnn_link_put32(at, link->port->stack_bytes);
  at = esnn_link_put16(at, model->node_count);
  at = esnn_link_put16(at, model->timesteps);
  at = esnn_link_put16(at, model->classes);
  *at++ = link->session;
  uint32_t used = (uint32_t)(at - start);
  for (const char *c = model->name; *c != '\0' && used < ESNN_LINK_PAYLOAD; ++c, ++used) {
    *at++ = (uint8_t)*c;
  }
  return used;
}

/* Decision, ticks, totals, number and as many output membranes as fit: the payload of INFER, STEP and RESULT. */
static uint32_t decision(const esnn_link *link, uint8_t *at) {
  const uint8_t *start = at;
  const esnn_model *model = link->ctx->model;
  esnn_decision found = {0xFFFFu, link->ctx->step, 0u};
  int32_t decided = esnn_result(link->ctx, &found);
  esnn_stats total = {0u, 0u};
  for (uint32_t i = 0; i < model->node_count; ++i) {
    esnn_stats stats;
    if (esnn_node_stats(link->ctx, i, &stats) >= 0) {
      total.events += stats.events;
      total.sops += stats.sops;
    }
  }
  at = esnn_link_put16(at, found.label);
  *at++ = decided >= 0 ? 1u : 0u;
  *at++ = found.exited != 0u ? 1u : 0u;
  at = esnn_link_put32(at, found.step);
  at = esnn_link_put32(at, link->ticks);
  at = esnn_link_put32(at, total.events);
  at = esnn_link_put32(at, total.sops);
  at = esnn_link_put32(at, link->inferences);
  uint32_t used = (uint32_t)(at - start);
  for (uint32_t k = 0; k < model->classes && used + 4u <= ESNN_LINK_PAYLOAD; ++k, used += 4u) {
    int32_t value;
    if (esnn_membrane(link->ctx, k, &value) < 0) {
      break;
    }
    at = esnn_link_put32(at, (uint32_t)value);
  }
  return used;
}

/* Events of the node run last, from number `first` on, as many as fit into `room` bytes. */
static uint32_t events(const esnn_link *link, uint32_t first, uint8_t *at, uint32_t room) {
  uint32_t width = link->ctx->model->event_bytes == 2u ? 2u : 4u;
  uint32_t used = 0;
  for (uint32_t i = first; i < link->ctx->last_count && used + width <= room; ++i, used += width) {
    uint32_t address;
    if (esnn_event(link->ctx, i, &address) < 0) {
      break;
    }
    at = width == 2u ? esnn_link_put16(at, address) : esnn_link_put32(at, address);
  }
  return used;
}

/* Run a node, a step, or steps until the decision: step by step rather than esnn_run, so that the counter is read
 * before it can wrap unseen. A decision is counted. */
static int32_t compute(esnn_link *link, uint32_t op) {
  int32_t code;
  link->port->ticks_start();
  do {
    code = op == ESNN_LINK_STEP_NODE ? esnn_step_node(link->ctx) : esnn_step(link->ctx);
    link->ticks = link->port->ticks();
  } while (op == ESNN_LINK_INFER && code == ESNN_OK);
  if (code == ESNN_DECIDED) {
    ++link->inferences;
  }
  return code;
}

static int32_t push_events(esnn_link *link, const uint8_t *in, uint32_t size) {
  uint32_t addresses[ESNN_LINK_PAYLOAD / 4u];
  uint32_t count = size / 4u;
  for (uint32_t i = 0; i < count; ++i) {
    addresses[i] = esnn_link_get32(in + 4u * i);
  }
  return esnn_push_events(link->ctx, addresses, count);
}

/* Lengths that a request's payload may have. */
static int takes(uint32_t op, uint32_t size) {
  switch (op) {
    case ESNN_LINK_DATA:
      return size > 4u;
    case ESNN_LINK_EVENTS:
      return size > 0u && (size & 3u) == 0u;
    case ESNN_LINK_READ_EVENTS:
      return size == 4u;
    case ESNN_LINK_READ_STATS:
    case ESNN_LINK_READ_MEMBRANES:
      return size == 2u;
    default:
      return size == 0u;
  }
}

/* Execute one request: fills the payload at `out`, returns the status. */
static uint32_t execute(esnn_link *link, uint32_t op, const uint8_t *in, uint32_t size, uint8_t *out,
                        uint32_t *used) {
  esnn_ctx *ctx = link->ctx;
  const esnn_model *model = ctx->model;
  int32_t code = ESNN_OK;
#ifdef ESNN_LINK_STREAM
  if (op >= ESNN_LINK_STREAM_RESET) {
    return esnn_link_stream_execute(&link->streaming, link->port, op, in, size, out, used);
  }
  if (size > ESNN_LINK_PAYLOAD) {
    return ESNN_LINK_ERR_PAYLOAD;
  }
#endif
  if (op > ESNN_LINK_STACK) {
    return ESNN_LINK_ERR_OP;
  }
  if (!takes(op, size)) {
    return ESNN_LINK_ERR_PAYLOAD;
  }
  switch (op) {
    case ESNN_LINK_HELLO:
      *used = describe(link, model, out);
      break;
    case ESNN_LINK_RESET:
      code = esnn_reset(ctx);
      break;
    case ESNN_LINK_DATA:
      code = esnn_push_part(ctx, esnn_link_get32(in), in + 4, size - 4u);
      break;
    case ESNN_LINK_EVENTS:
      code = push_events(link, in, size);
      break;
    case ESNN_LINK_INFER:
    case ESNN_LINK_STEP:
      code = compute(link, op);
      if (code >= 0) {
        *used = decision(link, out);
      }
      break;
    case ESNN_LINK_STEP_NODE: {
      uint32_t node = ctx->node;
      code = compute(link, op);
      if (code >= 0) {
        uint8_t *at = esnn_link_put16(out, node);
        *at++ = code == ESNN_DECIDED ? 1u : 0u;
        *at++ = 0u;
        at = esnn_link_put32(at, ctx->step);
        at = esnn_link_put32(at, link->ticks);
        at = esnn_link_put32(at, ctx->last_count);
        *used = 16u + events(link, 0u, at, ESNN_LINK_PAYLOAD - 16u);
      }
      break;
    }
    case ESNN_LINK_RESULT:
      *used = decision(link, out);
      break;
    case ESNN_LINK_READ_EVENTS:
      if (esnn_link_get32(in) >= ctx->last_count) {
        return ESNN_LINK_ERR_RANGE;
      }
      *used = events(link, esnn_link_get32(in), out, ESNN_LINK_PAYLOAD);
      break;
    case ESNN_LINK_READ_STATS:
      if (esnn_link_get16(in) >= model->node_count) {
        return ESNN_LINK_ERR_RANGE;
      }
      for (uint32_t i = esnn_link_get16(in); i < model->node_count && *used < ESNN_LINK_PAYLOAD; ++i) {
        esnn_stats stats;
        code = esnn_node_stats(ctx, i, &stats);
        if (code < 0) {
          break;
        }
        esnn_link_put32(esnn_link_put32(out + *used, stats.events), stats.sops);
        *used += 8u;
      }
      break;
    case ESNN_LINK_READ_MEMBRANES:
      if (esnn_link_get16(in) >= model->classes) {
        return ESNN_LINK_ERR_RANGE;
      }
      for (uint32_t k = esnn_link_get16(in); k < model->classes && *used < ESNN_LINK_PAYLOAD; ++k) {
        int32_t value;
        code = esnn_membrane(ctx, k, &value);
        if (code < 0) {
          break;
        }
        esnn_link_put32(out + *used, (uint32_t)value);
        *used += 4u;
      }
      break;
    default: /* ESNN_LINK_STACK */
      esnn_link_put32(esnn_link_put32(out, link->port->stack_used()), link->port->stack_bytes);
      *used = 8u;
      break;
  }
  if (code < 0) {
    *used = 0u;
  }
  return esnn_link_core_status(code);
}

/* Answer the `count` bytes of COBS at link->in. */
static uint32_t answer(esnn_link *link, uint32_t count) {
  int32_t body = count <= ESNN_LINK_BODY + 1u ? unstuff(link->in, count) : -1;
  if (body < (int32_t)(ESNN_LINK_HEADER + 4u)) {
    return notice(link, 0u, ESNN_LINK_UNREADABLE, ESNN_LINK_ERR_FRAME, 0u);
  }
  uint32_t size = (uint32_t)body - 4u;
  if (esnn_link_get32(link->in + size) != esnn_link_crc32(link->in, size)) {
    return notice(link, 0u, ESNN_LINK_UNREADABLE, ESNN_LINK_ERR_CHECKSUM, 0u);
  }
  uint32_t sequence = link->in[1];
  uint32_t op = link->in[2];
  /* Its response would bear the name of another, or of a banner, a fault, an unreadable frame. */
  if (op < ESNN_LINK_HELLO || op > ESNN_LINK_LAST_OP) {
    return notice(link, 0u, ESNN_LINK_UNREADABLE, ESNN_LINK_ERR_OP, 0u);
  }
  uint8_t session = link->in[3];
  int stranger = session == 0u || (op != ESNN_LINK_HELLO && session != link->session);
  uint32_t refused = link->in[0] != ESNN_LINK_VERSION ? ESNN_LINK_ERR_VERSION
                     : sequence == 0u                 ? ESNN_LINK_ERR_SEQUENCE
                     : stranger                       ? ESNN_LINK_ERR_SESSION
                                                      : ESNN_LINK_OK;
  if (refused != ESNN_LINK_OK) {
    link->notice[1u + ESNN_LINK_HEADER] = link->session;
    return notice(link, sequence, op | ESNN_LINK_RESPONSE, refused, refused == ESNN_LINK_ERR_SESSION ? 1u : 0u);
  }
  /* A new host may begin with any number: HELLO is never taken from memory, nor too late. That of the session under
   * way comes twice, and the second may be late: the number and the stored response stay. */
  if (op == ESNN_LINK_HELLO && session == link->session && size == ESNN_LINK_HEADER) {
    return notice(link, sequence, op | ESNN_LINK_RESPONSE, ESNN_LINK_OK,
                  describe(link, link->ctx->model, link->notice + 1u + ESNN_LINK_HEADER));
  }
  uint32_t behind = (link->sequence + 255u - sequence) % 255u;
  if (op != ESNN_LINK_HELLO && behind > 0u && behind < 128u) {
    return 0u; /* a late copy, whose answer nobody waits for */
  }
  if (op == ESNN_LINK_HELLO || behind != 0u) {
    uint32_t used = 0u;
    uint32_t status = execute(link, op, link->in + ESNN_LINK_HEADER, size - ESNN_LINK_HEADER,
                              link->reply + 1u + ESNN_LINK_HEADER, &used);
    head(link->reply, sequence, op | ESNN_LINK_RESPONSE, status);
    link->reply_bytes = seal(link->reply, used);
    link->sequence = (uint8_t)sequence;
    if (op == ESNN_LINK_HELLO && status == ESNN_LINK_OK) {
      link->session = session;
      link->inferences = 0u;
    }
  }
  link->out = link->reply;
  return link->reply_bytes;
}

void esnn_link_init(esnn_link *link, esnn_ctx *ctx, const esnn_link_port *port) {
  link->ctx = ctx;
  link->port = port;
  link->out = link->reply;
  link->received = 0u;
  link->reply_bytes = 0u;
  link->ticks = 0u;
  link->inferences = 0u;
  link->session = 0u;
  link->sequence = 0u;
}

#ifdef ESNN_LINK_STREAM
void esnn_link_bind(esnn_link *link, struct esnn_stream *stream) {
  link->streaming.stream = stream;
  link->streaming.front_ticks = 0u;
  link->streaming.network_ticks = 0u;
}
#endif

uint32_t esnn_link_banner(esnn_link *link, const esnn_model *model, int32_t status) {
  uint32_t payload = describe(link, model, link->notice + 1u + ESNN_LINK_HEADER);
  return notice(link, 0u, ESNN_LINK_BANNER, esnn_link_core_status(status), payload);
}

uint32_t esnn_link_receive(esnn_link *link, uint8_t byte) {
  if (byte != 0u) {
    if (link->received < sizeof link->in) {
      link->in[link->received] = byte;
      ++link->received;
    }
    return 0u;
  }
  uint32_t count = link->received;
  link->received = 0u;
  return count == 0u ? 0u : answer(link, count);
}

uint32_t esnn_link_fault(esnn_link *link, const uint32_t *words, uint32_t count) {
  uint8_t *at = link->notice + 1u + ESNN_LINK_HEADER;
  for (uint32_t i = 0; i < count && i < ESNN_LINK_PAYLOAD / 4u; ++i) {
    at = esnn_link_put32(at, words[i]);
  }
  return notice(link, 0u, ESNN_LINK_FAULT, ESNN_LINK_OK,
                (uint32_t)(at - link->notice) - 1u - ESNN_LINK_HEADER);
}

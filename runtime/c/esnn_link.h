/* The serial protocol of an edgesnn board, apart from any board: docs/FORMAT.md, "Serial protocol".
 *
 * Feed every received byte to esnn_link_receive and send what it asks for. One request, one response; a
 * request that comes again under the sequence number of the last one is answered from memory, not executed
 * again, and a late copy of an older one is passed over. HELLO begins a session; a request of another session
 * is refused. Whatever arrives, the link is ready for the next frame after the next 0x00.
 *
 * Of a model with a stream, compile esnn_link.c and what includes this header with ESNN_LINK_STREAM defined, and
 * esnn_link_stream.c too. Without it nothing of streams is in the link.
 */
#ifndef ESNN_LINK_H
#define ESNN_LINK_H

#include <stdint.h>

#include "esnn.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ESNN_LINK_VERSION 2u
#define ESNN_LINK_HEADER 4u   /* version, sequence, operation, session (of a reply: status) */
#define ESNN_LINK_PAYLOAD 64u /* at most, but of a signal's requests */
#define ESNN_LINK_SIGNAL 240u /* those take more: a USB bridge may need milliseconds for each exchange */
#ifdef ESNN_LINK_STREAM
#define ESNN_LINK_REQUEST ESNN_LINK_SIGNAL
#else
#define ESNN_LINK_REQUEST ESNN_LINK_PAYLOAD
#endif
#define ESNN_LINK_BODY (ESNN_LINK_HEADER + ESNN_LINK_REQUEST + 4u)  /* of a request, with the CRC-32 */
#define ESNN_LINK_FRAME (ESNN_LINK_HEADER + ESNN_LINK_PAYLOAD + 6u) /* of a reply: CRC-32, COBS's byte, 0x00 */

/* Operations of a request, of which 0x01...0x7D may ever be one; the response has bit 7 set. */
#define ESNN_LINK_HELLO 0x01u
#define ESNN_LINK_RESET 0x02u
#define ESNN_LINK_DATA 0x03u
#define ESNN_LINK_EVENTS 0x04u
#define ESNN_LINK_INFER 0x05u
#define ESNN_LINK_STEP 0x06u
#define ESNN_LINK_STEP_NODE 0x07u
#define ESNN_LINK_RESULT 0x08u
#define ESNN_LINK_READ_EVENTS 0x09u
#define ESNN_LINK_READ_STATS 0x0Au
#define ESNN_LINK_READ_MEMBRANES 0x0Bu
#define ESNN_LINK_STACK 0x0Cu
#define ESNN_LINK_STREAM_RESET 0x0Du
#define ESNN_LINK_STREAM_PUSH 0x0Eu
#define ESNN_LINK_STREAM_EVENTS 0x0Fu
#define ESNN_LINK_LAST_OP 0x7Du
#define ESNN_LINK_RESPONSE 0x80u
#define ESNN_LINK_STREAMS 0x80u /* in HELLO, with the bytes of an output membrane: there are streams */
/* Frames that answer no readable request; their sequence number is 0. */
#define ESNN_LINK_BANNER 0x80u
#define ESNN_LINK_FAULT 0xFEu
#define ESNN_LINK_UNREADABLE 0xFFu

/* Status of a response. */
#define ESNN_LINK_OK 0u
#define ESNN_LINK_ERR_FRAME 1u    /* too short, too long or not COBS */
#define ESNN_LINK_ERR_CHECKSUM 2u /* CRC-32 differs */
#define ESNN_LINK_ERR_VERSION 3u  /* another protocol version */
#define ESNN_LINK_ERR_OP 4u       /* no such operation */
#define ESNN_LINK_ERR_PAYLOAD 5u  /* payload too short or too long for the operation */
#define ESNN_LINK_ERR_RANGE 6u    /* first node, class or event does not exist */
#define ESNN_LINK_ERR_SEQUENCE 7u /* a request may not bear sequence number 0 */
#define ESNN_LINK_ERR_SESSION 8u  /* session 0, or not the one of the last HELLO, which is the payload */
#define ESNN_LINK_ERR_ESNN 0x10u  /* plus n for the C core's error -n */

/* What the link needs of a board. */
typedef struct esnn_link_port {
  void (*ticks_start)(void);      /* start counting from 0 */
  uint32_t (*ticks)(void);        /* ticks since then; asked at least once per timestep */
  uint32_t (*stack_used)(void);   /* bytes, high-water mark since reset */
  uint32_t counter_hz;
  uint32_t stack_bytes; /* reserved */
} esnn_link_port;

/* A stream behind the link, and what the counter said since its last decision. */
typedef struct esnn_link_stream {
  struct esnn_stream *stream;
  uint64_t front_ticks;   /* taking the signal in: front end, binning, votes */
  uint64_t network_ticks;
} esnn_link_stream;

typedef struct esnn_link {
  esnn_ctx *ctx;
  const esnn_link_port *port;
  const uint8_t *out;             /* the frame to send */
  uint32_t received;              /* bytes since the last 0x00, counted up to one more than fit */
  uint32_t reply_bytes;
  uint32_t ticks;                 /* last reading of the counter */
  uint32_t inferences;            /* decided in this session */
  uint8_t session;                /* of the last HELLO, 0: none since boot */
  uint8_t sequence;               /* of the stored reply, 0: none */
#ifdef ESNN_LINK_STREAM
  esnn_link_stream streaming;
#endif
  uint8_t in[ESNN_LINK_BODY + 2u];
  uint8_t reply[ESNN_LINK_FRAME]; /* the stored reply, kept for a repeated request */
  uint8_t notice[ESNN_LINK_FRAME]; /* banner, fault, unreadable frame: never stored */
} esnn_link;

/* Bind the link to an initialised context and a board's functions. */
void esnn_link_init(esnn_link *link, esnn_ctx *ctx, const esnn_link_port *port);
#ifdef ESNN_LINK_STREAM
/* Offer the operations of streams too; `stream` is bound to the link's context. */
void esnn_link_bind(esnn_link *link, struct esnn_stream *stream);
#endif
/* The frame to send at boot, before anything else; `status` is 0 or a negative ESNN_ERR_ code of esnn_init.
 * Returns its length in bytes; the frame is at link->out. */
uint32_t esnn_link_banner(esnn_link *link, const esnn_model *model, int32_t status);
/* Take one byte. Returns the length of the frame at link->out that is to be sent now, or 0. */
uint32_t esnn_link_receive(esnn_link *link, uint8_t byte);
/* The frame that says that the processor has stopped, with up to 16 words (pc, lr, ...). */
uint32_t esnn_link_fault(esnn_link *link, const uint32_t *words, uint32_t count);
/* CRC-32 (IEEE 802.3, reflected 0xEDB88320, as zlib's). */
uint32_t esnn_link_crc32(const uint8_t *bytes, uint32_t count);

/* esnn_link_stream.c: execute an operation of streams. Fills the payload at `out`, returns the status. */
uint32_t esnn_link_stream_execute(esnn_link_stream *at, const esnn_link_port *port, uint32_t op, const uint8_t *in,
                                  uint32_t size, uint8_t *out, uint32_t *used);

/* Status of a response that a return code of the C core gives. */
static inline uint32_t esnn_link_core_status(int32_t code) {
  return code >= 0 ? ESNN_LINK_OK : ESNN_LINK_ERR_ESNN + (uint32_t)-code;
}

/* Numbers on the wire: little-endian. */
static inline uint8_t *esnn_link_put16(uint8_t *at, uint32_t value) {
  at[0] = (uint8_t)(value & 0xFFu);
  at[1] = (uint8_t)((value >> 8) & 0xFFu);
  return at + 2;
}

static inline uint8_t *esnn_link_put32(uint8_t *at, uint32_t value) {
  return esnn_link_put16(esnn_link_put16(at, value & 0xFFFFu), value >> 16);
}

static inline uint32_t esnn_link_get16(const uint8_t *at) { return (uint32_t)at[0] | ((uint32_t)at[1] << 8); }

static inline uint32_t esnn_link_get32(const uint8_t *at) {
  return esnn_link_get16(at) | (esnn_link_get16(at + 2) << 16);
}

#ifdef __cplusplus
}
#endif
#endif

/* The serial protocol of an edgesnn board, apart from any board: docs/FORMAT.md, "Serial protocol".
 *
 * Feed every received byte to esnn_link_receive and send what it asks for. One request, one response; a
 * request that comes again under the sequence number of the last one is answered from memory, not executed
 * again. Whatever arrives, the link is ready for the next frame after the next 0x00.
 */
#ifndef ESNN_LINK_H
#define ESNN_LINK_H

#include <stdint.h>

#include "esnn.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ESNN_LINK_VERSION 1u
#define ESNN_LINK_HEADER 4u   /* version, sequence, operation, status */
#define ESNN_LINK_PAYLOAD 64u /* at most */
#define ESNN_LINK_BODY (ESNN_LINK_HEADER + ESNN_LINK_PAYLOAD + 4u) /* with the CRC-32 */
#define ESNN_LINK_FRAME (ESNN_LINK_BODY + 2u)                      /* with the COBS code byte and 0x00 */

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
#define ESNN_LINK_LAST_OP 0x7Du
#define ESNN_LINK_RESPONSE 0x80u
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
#define ESNN_LINK_ERR_RESERVED 8u /* the last header byte of a request is not 0 */
#define ESNN_LINK_ERR_ESNN 0x10u  /* plus n for the C core's error -n */

/* What the link needs of a board. */
typedef struct esnn_link_port {
  void (*ticks_start)(void);      /* start counting from 0 */
  uint32_t (*ticks)(void);        /* ticks since then; asked at least once per timestep */
  uint32_t (*stack_used)(void);   /* bytes, high-water mark since reset */
  uint32_t counter_hz;
  uint32_t stack_bytes; /* reserved */
} esnn_link_port;

typedef struct esnn_link {
  esnn_ctx *ctx;
  const esnn_link_port *port;
  const uint8_t *out;             /* the frame to send */
  uint32_t received;              /* bytes since the last 0x00, counted up to one more than fit */
  uint32_t reply_bytes;
  uint32_t ticks;                 /* last reading of the counter */
  uint8_t sequence;               /* of the stored reply, 0: none */
  uint8_t in[ESNN_LINK_FRAME];
  uint8_t reply[ESNN_LINK_FRAME]; /* the stored reply, kept for a repeated request */
  uint8_t notice[ESNN_LINK_FRAME]; /* banner, fault, unreadable frame: never stored */
} esnn_link;

/* Bind the link to an initialised context and a board's functions. */
void esnn_link_init(esnn_link *link, esnn_ctx *ctx, const esnn_link_port *port);
/* The frame to send at boot, before anything else; `status` is 0 or a negative ESNN_ERR_ code of esnn_init.
 * Returns its length in bytes; the frame is at link->out. */
uint32_t esnn_link_banner(esnn_link *link, const esnn_model *model, int32_t status);
/* Take one byte. Returns the length of the frame at link->out that is to be sent now, or 0. */
uint32_t esnn_link_receive(esnn_link *link, uint8_t byte);
/* The frame that says that the processor has stopped, with up to 16 words (pc, lr, ...). */
uint32_t esnn_link_fault(esnn_link *link, const uint32_t *words, uint32_t count);
/* CRC-32 (IEEE 802.3, reflected 0xEDB88320, as zlib's). */
uint32_t esnn_link_crc32(const uint8_t *bytes, uint32_t count);

#ifdef __cplusplus
}
#endif
#endif

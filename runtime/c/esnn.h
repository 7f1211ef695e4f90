/* edgesnn C core: runs one compiled spiking model.
 *
 * C99; no heap, no floating point, no recursion, no global that is written. The caller owns all memory.
 * Functions return a value >= 0 on success and one of the negative ESNN_ERR_ codes otherwise.
 * Not re-entrant on one context; contexts are independent of each other.
 */
#ifndef ESNN_H
#define ESNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ESNN_API_VERSION 3u

/* Return codes. */
#define ESNN_OK 0             /* done; from a step: no decision yet */
#define ESNN_DECIDED 1        /* from a step: the readout has decided, see esnn_result */
#define ESNN_ERR_ARGUMENT -1  /* null pointer, wrong length, address outside the map */
#define ESNN_ERR_MEMORY -2    /* arena too small or not 8-byte aligned */
#define ESNN_ERR_VERSION -3   /* model was generated for another ESNN_API_VERSION */
#define ESNN_ERR_STATE -4     /* not now: no complete frame yet, already decided, nothing decided yet, encoder busy */
#define ESNN_ERR_INPUT -5     /* this model takes the other kind of input (samples / events) */

/* esnn_node.kind */
#define ESNN_NODE_INPUT 0    /* what the caller pushes: a frame of samples, or address events */
#define ESNN_NODE_ENCODER 1  /* samples to spikes */
#define ESNN_NODE_SPIKING 2  /* population with threshold and reset */
#define ESNN_NODE_OPERATOR 3 /* pooling */
#define ESNN_NODE_OUTPUT 4   /* population that the readout looks at */

/* One node of the program; run is null for the input. Otherwise it does all of the node's work in timestep t
 * (1...T): returns the number of events it emitted and adds its synaptic operations to *sops. The output node
 * returns class + 1 when the readout's criterion is met and -(class + 1) with the leading class when it is not.
 *
 * What a node emits in a step is a spike map or, where bits is 0, a queue of model->event_bytes an address. In a
 * map every position has its channels as bits of one or more words, the first channel in the lowest bit. A node of
 * signed spikes has a second map behind it, of the negative ones: address neurons + a is unit a's.
 *
 * In a model with a period the nodes are a pipeline: each works in windows of `period` steps, the first of which
 * begins in step `start`, and is not run where its window has no frame. */
typedef struct esnn_node {
  const char *name;
  int32_t (*run)(uint8_t *arena, int32_t t, uint32_t *sops);
  uint32_t spikes_offset;  /* in the arena; of step 1 where plane_bytes is not 0 */
  uint32_t queue_capacity; /* events; proved never to be exceeded */
  uint32_t neurons;
  uint32_t kind;
  uint32_t bits;        /* of a map's word: 8, 16 or 32 */
  uint32_t channels;    /* of a position */
  uint32_t plane_bytes; /* from one step's map to the next one's; 0: all steps use one */
  uint32_t planes;      /* after so many steps maps are used again */
  uint32_t start;       /* step in which its first window begins; 1 without a period */
} esnn_node;

/* A compiled model: constant, lives in flash. */
typedef struct esnn_model {
  uint32_t api_version;
  uint8_t id[16]; /* first 16 bytes of the program's SHA-256 */
  const char *name;
  const esnn_node *nodes; /* topological order; the last one is the output */
  uint32_t node_count;
  uint32_t timesteps; /* from the first step to the last that can decide */
  uint32_t period;    /* steps from one frame to the next in a pipeline; 0: one inference after the other */
  uint32_t coding;    /* steps in which an encoder of a pipeline needs its frame */
  uint32_t cycle;     /* a multiple of the period and of all `planes`, after which steps are counted anew */
  uint32_t classes;
  uint32_t input_bytes;  /* one frame of samples; 0 for an event input */
  uint32_t input_offset; /* in the arena: the frame; for an event input its spike map */
  uint32_t event_bytes;  /* 2 or 4 */
  uint32_t output_bytes; /* width of an output membrane, 2 or 4 */
  uint32_t output_offset;
  uint32_t stats_offset;  /* esnn_stats[node_count] */
  uint32_t counts_offset; /* uint32_t[node_count]: events of each node in this step */
  uint32_t arena_bytes;
} esnn_model;

/* Counters since esnn_push_frame, modulo 2^32, one per node: of the current inference, or of a pipeline's frames. */
typedef struct esnn_stats {
  uint32_t events;
  uint32_t sops;
} esnn_stats;

typedef struct esnn_ctx {
  const esnn_model *model;
  uint8_t *arena;
  uint32_t filled;     /* bytes of the frame received */
  uint32_t step;       /* timestep under way or finished, 0 before the first */
  uint32_t newest;     /* step before the first one of the frame pushed last */
  uint32_t oldest;     /* step before the first one of the frame that is decided next */
  uint32_t node;       /* next node to run in this step */
  uint32_t last_node;  /* node run last */
  uint32_t last_count; /* events that it has emitted */
  uint32_t seek_event; /* esnn_event's place in its map: this event is the next one at or after this bit */
  uint32_t seek_bit;
  int32_t label;       /* of the last decision; -1 before the first */
  uint32_t decided_at; /* its timestep */
  uint32_t exited;
  uint32_t done;       /* no frame is left to decide */
  uint32_t has_output; /* the output node has run */
} esnn_ctx;

typedef struct esnn_decision {
  uint32_t label;
  uint32_t step;   /* stopping timestep, 1...T */
  uint32_t exited; /* 1: the criterion was met; 0: argmax at T */
} esnn_decision;

/* Bind a model to an arena of at least model->arena_bytes, 8-byte aligned. */
int32_t esnn_init(esnn_ctx *ctx, const esnn_model *model, void *arena, size_t arena_bytes);
/* Forget the current inference. */
int32_t esnn_reset(esnn_ctx *ctx);
/* Start a new inference on one frame of samples (little-endian, channel-last). */
int32_t esnn_push_frame(esnn_ctx *ctx, const void *samples, size_t bytes);
/* The same in consecutive parts; offset 0 starts a new inference. */
int32_t esnn_push_part(esnn_ctx *ctx, size_t offset, const void *samples, size_t bytes);
/* The next frame, between two steps, of a pipelined model even before the one pushed last is decided: it enters as
 * soon as the encoder is done with that one. Until then, when it comes too late to follow without a gap, and of a
 * model without a period, the answer is ESNN_ERR_STATE: step on, at the latest until all frames are decided; then
 * this is esnn_push_frame. Decisions come in the order of the frames; esnn_node_stats count all frames since
 * esnn_push_frame. */
int32_t esnn_push_next(esnn_ctx *ctx, const void *samples, size_t bytes);
/* Events of the step that esnn_step runs next; an address that comes twice in a step counts once. The first
 * push after a decision, or after esnn_reset, starts a new inference. */
int32_t esnn_push_events(esnn_ctx *ctx, const uint32_t *addresses, size_t count);
/* Run one node: ESNN_OK or ESNN_DECIDED. */
int32_t esnn_step_node(esnn_ctx *ctx);
/* Finish the current timestep (a whole one, if none is under way): ESNN_OK or ESNN_DECIDED. */
int32_t esnn_step(esnn_ctx *ctx);
/* Step until decided (an event input sees no further events): ESNN_DECIDED. */
int32_t esnn_run(esnn_ctx *ctx);
/* The last decision, once there is one. */
int32_t esnn_result(const esnn_ctx *ctx, esnn_decision *out);
/* Output membrane of class k as of the last finished step of the output node. */
int32_t esnn_membrane(const esnn_ctx *ctx, uint32_t k, int32_t *out);
/* Event i of those that the node run last has emitted; fastest in ascending order of i. */
int32_t esnn_event(esnn_ctx *ctx, uint32_t i, uint32_t *out);
/* Counters of node i. */
int32_t esnn_node_stats(const esnn_ctx *ctx, uint32_t i, esnn_stats *out);
/* One line for an error code. */
const char *esnn_strerror(int32_t code);

#ifdef __cplusplus
}
#endif
#endif

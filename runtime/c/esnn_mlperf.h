/* MLPerf Tiny's serial protocol, apart from any board: docs/MLPERF-TINY.md. Text in both directions.
 *
 * Feed every received byte to esnn_mlperf_receive; a command ends with '%' and is answered through port->put
 * before the call returns. Whatever arrives, the next command after the next '%' is understood.
 *
 * The counter is read between any two layers and between any two bytes sent. While waiting for a byte call
 * esnn_mlperf_poll instead, often enough for a counter that wraps.
 */
#ifndef ESNN_MLPERF_H
#define ESNN_MLPERF_H

#include <stdint.h>

#include "esnn.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ESNN_MLPERF_COMMAND 80u /* characters of a command before its '%', as in the reference */
#define ESNN_MLPERF_MOST 1000000u /* iterations that one command may ask for */

/* What the protocol needs of a board. */
typedef struct esnn_mlperf_port {
  void (*put)(uint8_t byte); /* send a byte */
  uint32_t (*ticks)(void);   /* ticks since some moment, modulo 2^32 */
  uint32_t counter_hz;       /* below 2^31 */
  const char *board;         /* the device's name */
} esnn_mlperf_port;

/* A moment since esnn_mlperf_init: whole seconds and ticks. */
typedef struct esnn_mlperf_time {
  uint32_t seconds;
  uint32_t ticks; /* less than a second's */
} esnn_mlperf_time;

typedef struct esnn_mlperf {
  esnn_ctx *ctx;
  const esnn_model *model;
  const esnn_mlperf_port *port;
  uint8_t *frame;        /* what `db` fills: model->input_bytes, one frame of samples */
  uint32_t loading;      /* `db load` was given */
  uint32_t loaded;       /* bytes of the frame that came since then */
  esnn_mlperf_time time; /* at `read` */
  uint32_t read;         /* the counter's last value */
  uint32_t length;       /* of the command under way, up to one more than fit */
  char command[ESNN_MLPERF_COMMAND + 1u];
} esnn_mlperf;

/* Bind to a context, to model->input_bytes of memory and to a board; sends nothing. The model's samples are in
 * the order and width that esnn_push_frame takes. */
void esnn_mlperf_init(esnn_mlperf *self, esnn_ctx *ctx, const esnn_model *model, uint8_t *frame,
                      const esnn_mlperf_port *port);
/* Say that the device is ready; `status` is what esnn_init gave. */
void esnn_mlperf_start(esnn_mlperf *self, int32_t status);
/* Take one byte; answers the command that it ends. */
void esnn_mlperf_receive(esnn_mlperf *self, uint8_t byte);
/* Go on counting time. */
void esnn_mlperf_poll(esnn_mlperf *self);
/* Say that the processor has stopped, with the words of bsp_on_fault. */
void esnn_mlperf_fault(esnn_mlperf *self, const uint32_t *words, uint32_t count);

#ifdef __cplusplus
}
#endif
#endif

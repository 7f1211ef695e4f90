/* A model small enough to be checked by hand, with the outside of a generated one. */
#ifndef MODEL_H
#define MODEL_H

#include "esnn.h"

#ifdef TEST_ARENA
#define ESNN_MODEL_ARENA_BYTES TEST_ARENA
#else
#define ESNN_MODEL_ARENA_BYTES 2456u
#endif

#ifdef TEST_EVENT_INPUT
#define ESNN_MODEL_INPUT_BYTES 0u
#else
#define ESNN_MODEL_INPUT_BYTES 784u
#endif

extern const esnn_model esnn_model_data;

#ifdef TEST_STREAM
#include "esnn_stream.h"

#define ESNN_MODEL_STREAM
#ifdef TEST_EVENT_INPUT
#define ESNN_MODEL_STREAM_BYTES 0u
#else
#define ESNN_MODEL_STREAM_BYTES 800u
#endif

extern const esnn_stream_model esnn_stream_data;
#endif

#endif

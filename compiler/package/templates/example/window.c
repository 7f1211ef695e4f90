@{decided}
/* Push a signal: 1 where all decisions are the reference's, 0 where not, else a negative ESNN_ERR_ code. */
static int32_t try_model(void) {
  uint32_t i, k;
  int32_t same = 1;
  int32_t status = esnn_init(&ctx, &@{library}_model, arena, sizeof arena);
  if (status >= 0) status = esnn_stream_init(&stream, &@{library}_stream, &ctx, memory, sizeof memory);
  decisions = 0;
  for (i = 0; i < SAMPLES && status >= 0; ++i) {
    value_t values[VALUES]; /* what a sensor would deliver; many at a time are welcome too */
    const uint8_t *next = (const uint8_t *)values;
    size_t left = sizeof values;
    for (k = 0; k < VALUES; ++k) values[k] = signal_value(i * VALUES + k);
    while (left > 0 && status >= 0) {
      size_t used = 0;
      status = esnn_stream_push(&stream, next, left, &used);
      next += used;
      left -= used;
      if (status == ESNN_DUE) { /* a window is complete */
        status = esnn_stream_classify(&stream);
        if (status >= 0) same = decided() && same;
      }
    }
  }
  return status < 0 ? status : same && decisions == DECISIONS;
}

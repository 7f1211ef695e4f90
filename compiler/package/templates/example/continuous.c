@{decided}
/* Run the step that is due. */
static int32_t run_step(int32_t *same) {
  int32_t status = esnn_stream_step(&stream);
  if (status == ESNN_DECIDED) *same = decided() && *same;
  return status;
}

/* Push events: 1 where all decisions are the reference's, 0 where not, else a negative ESNN_ERR_ code. */
static int32_t try_model(void) {
  uint32_t i;
  int32_t same = 1;
  int32_t status = esnn_init(&ctx, &@{library}_model, arena, sizeof arena);
  if (status >= 0) status = esnn_stream_init(&stream, &@{library}_stream, &ctx, memory, sizeof memory);
  decisions = 0;
  for (i = 0; i < EVENTS && status >= 0; ++i) {
    while ((status = esnn_stream_event(&stream, i * EVENT_US, event_address(i))) == ESNN_DUE) {
      status = run_step(&same); /* the event belongs to a later step: offer it again */
      if (status < 0) break;
    }
  }
  while (status >= 0 && (status = esnn_stream_advance(&stream, UNTIL_US)) == ESNN_DUE) {
    status = run_step(&same);
  }
  return status < 0 ? status : same && decisions == DECISIONS;
}

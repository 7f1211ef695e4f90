static uint64_t arena[(@{macro}_ARENA_BYTES + 7u) / 8u]; /* all the memory that model and stream need */
static uint64_t memory[@{macro}_STREAM_BYTES == 0u ? 1u : (@{macro}_STREAM_BYTES + 7u) / 8u];
static esnn_ctx ctx;
static esnn_stream stream;
static uint32_t decisions;

/* Print the newest decision: 1 where it is the reference's. */
static int32_t decided(void) {
  esnn_stream_decision d;
  const answer_t *want = &answers[decisions < DECISIONS ? decisions : 0u];
  int32_t same = decisions < DECISIONS && esnn_stream_result(&stream, &d) == ESNN_OK;
  if (!same) return 0;
  same = d.time == want->time && d.label == want->said[0] && d.step == want->said[1] &&
         d.smoothed == want->said[2] && d.detected == want->said[3];
  say("decision ");
  say_number((int32_t)++decisions);
  say(": class ");
  say(class_names[d.label]);
  say(d.detected != 0u ? ", reported" : "");
  say(same ? ": equal to the reference\n" : ": DIFFERS from the reference\n");
  return same;
}

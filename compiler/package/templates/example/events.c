static uint64_t arena[(@{macro}_ARENA_BYTES + 7u) / 8u]; /* all the memory that the model needs */
static esnn_ctx ctx;

/* Classify the events: 1 where the answer is the reference's, 0 where it is not, else a negative ESNN_ERR_ code. */
static int32_t try_model(void) {
  esnn_decision answer;
  uint32_t step, address, k;
  int32_t same;
  int32_t status = esnn_init(&ctx, &@{library}_model, arena, sizeof arena);
  for (step = 0; status == ESNN_OK; ++step) {
    for (address = 0; address < UNITS && status >= 0; ++address) {
      if (has_event(step, address)) status = esnn_push_events(&ctx, &address, 1);
    }
    if (status >= 0) status = esnn_step(&ctx); /* ESNN_DECIDED as soon as there is an answer */
  }
  if (status >= 0) status = esnn_result(&ctx, &answer);
  if (status < 0) return status;
  say("class ");
  say(class_names[answer.label]);
  say(" after step ");
  say_number((int32_t)answer.step);
  same = answer.label == ANSWER_CLASS && answer.step == ANSWER_STEP;
  for (k = 0; k < @{macro}_CLASSES; ++k) {
    int32_t membrane = 0;
    same = same && esnn_membrane(&ctx, k, &membrane) == ESNN_OK && membrane == answer_membranes[k];
  }
  say(same ? ": equal to the reference\n" : ": DIFFERS from the reference\n");
  return same;
}

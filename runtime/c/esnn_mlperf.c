#include "esnn_mlperf.h"

/* --- text ---------------------------------------------------------------------------------- */

static void put(esnn_mlperf *self, char c) {
  self->port->put((uint8_t)c);
  esnn_mlperf_poll(self);
}

static void say(esnn_mlperf *self, const char *text) {
  for (; *text != '\0'; ++text) {
    put(self, *text);
  }
}

/* What came from elsewhere: nothing in it may look like the end of a line or of brackets. */
static void say_name(esnn_mlperf *self, const char *text) {
  for (; *text != '\0'; ++text) {
    put(self, *text > ' ' && *text < 0x7F && *text != '[' && *text != ']' ? *text : '?');
  }
}

static void say_number(esnn_mlperf *self, uint32_t value) {
  char digits[10];
  uint32_t count = 0;
  do {
    digits[count++] = (char)('0' + (char)(value % 10u));
    value /= 10u;
  } while (value != 0u);
  while (count != 0u) {
    put(self, digits[--count]);
  }
}

static void say_hex(esnn_mlperf *self, uint32_t value, uint32_t digits) {
  while (digits-- != 0u) {
    put(self, "0123456789abcdef"[(value >> 4u * digits) & 15u]);
  }
}

static void end(esnn_mlperf *self) { say(self, "\r\n"); }

/* --- time ---------------------------------------------------------------------------------- */

void esnn_mlperf_poll(esnn_mlperf *self) {
  uint32_t now = self->port->ticks();
  uint32_t since = now - self->read;
  self->read = now;
  for (; since >= self->port->counter_hz; since -= self->port->counter_hz) {
    ++self->time.seconds;
  }
  self->time.ticks += since;
  if (self->time.ticks >= self->port->counter_hz) {
    self->time.ticks -= self->port->counter_hz;
    ++self->time.seconds;
  }
}

/* Microseconds: the seconds, then six digits of ticks / counter_hz by long division, in 32 bits. */
static void say_time(esnn_mlperf *self, const esnn_mlperf_time *time) {
  uint32_t rest = time->ticks;
  uint32_t micros = 0;
  say(self, "m-lap-us-");
  for (uint32_t place = 0; place < 6u; ++place) {
    uint32_t tenfold = 0;
    micros *= 10u;
    for (uint32_t i = 0; i < 10u; ++i) {
      tenfold += rest;
      if (tenfold >= self->port->counter_hz) {
        tenfold -= self->port->counter_hz;
        ++micros;
      }
    }
    rest = tenfold;
  }
  if (time->seconds != 0u) {
    say_number(self, time->seconds);
    for (uint32_t place = 100000u; place > micros && place > 1u; place /= 10u) {
      put(self, '0');
    }
  }
  say_number(self, micros);
  end(self);
}

static void timestamp(esnn_mlperf *self) {
  esnn_mlperf_time now;
  esnn_mlperf_poll(self);
  now = self->time;
  say_time(self, &now);
}

/* --- words of a command ---------------------------------------------------------------------- */

/* The word at *at, ended with '\0', and *at behind it; null where there is none. */
static const char *next_word(char **at) {
  char *word = *at;
  char *c;
  while (*word == ' ') {
    ++word;
  }
  c = word;
  while (*c != '\0' && *c != ' ') {
    ++c;
  }
  *at = c;
  if (*c != '\0') {
    *c = '\0';
    *at = c + 1;
  }
  return *word == '\0' ? NULL : word;
}

static int same(const char *a, const char *b) {
  while (*a != '\0' && *a == *b) {
    ++a;
    ++b;
  }
  return *a == *b;
}

/* A decimal number below 2^31; -1 for anything else. */
static int32_t number(const char *word) {
  int32_t value = 0;
  do {
    int32_t digit = *word - '0';
    if (digit < 0 || digit > 9 || value > (INT32_MAX - digit) / 10) {
      return -1;
    }
    value = 10 * value + digit;
  } while (*++word != '\0');
  return value;
}

static int32_t hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* --- commands ---------------------------------------------------------------------------------- */

static void help(esnn_mlperf *self) {
  say(self,
      "edgesnn, MLPerf Tiny's protocol\r\n"
      "name              the device\r\n"
      "timestamp         microseconds since reset\r\n"
      "profile           protocol and model\r\n"
      "db load N         expect the N bytes of a frame\r\n"
      "db HH[HH]*        the next of them, in hexadecimal\r\n"
      "db print [N [AT]] show N bytes from number AT on\r\n"
      "infer [N=1 [W=10]] time N inferences of the frame after W others\r\n"
      "results           the scores of the last one\r\n");
}

static void load(esnn_mlperf *self, const char *count) {
  if (count == NULL || number(count) != (int32_t)self->model->input_bytes) {
    say(self, "e-[This model takes frames of ");
    say_number(self, self->model->input_bytes);
    say(self, " bytes: db load ");
    say_number(self, self->model->input_bytes);
    say(self, "]\r\n");
    return;
  }
  self->loading = 1u;
  self->loaded = 0u;
  say(self, "m-[Expecting ");
  say_number(self, self->model->input_bytes);
  say(self, " bytes]\r\n");
}

/* The next bytes of the frame. Of a command with an error in it none is taken, so that it can be sent again. */
static void take(esnn_mlperf *self, const char *digits) {
  uint32_t count = 0;
  for (; digits[count] != '\0'; ++count) {
    if (hex_digit(digits[count]) < 0) {
      say(self, "e-[No hexadecimal digit: ");
      say_name(self, (const char[2]){digits[count], '\0'});
      say(self, "]\r\n");
      return;
    }
  }
  if ((count & 1u) != 0u) {
    say(self, "e-[An odd number of hexadecimal digits]\r\n");
    return;
  }
  if (self->loading == 0u || self->loaded == self->model->input_bytes) {
    say(self, "e-[No bytes are expected: db load N first]\r\n");
    return;
  }
  for (uint32_t i = 0; i < count && self->loaded < self->model->input_bytes; i += 2u) {
    self->frame[self->loaded++] = (uint8_t)(16 * hex_digit(digits[i]) + hex_digit(digits[i + 1u]));
  }
  if (self->loaded == self->model->input_bytes) {
    say(self, "m-load-done\r\n");
  }
}

/* Eight bytes a line. */
static void print(esnn_mlperf *self, const char *count, const char *from) {
  int32_t first = from == NULL ? 0 : number(from);
  int32_t most = count == NULL ? (int32_t)self->loaded : number(count);
  if (first < 0 || most < 0) {
    say(self, "e-[db print takes two numbers or fewer]\r\n");
    return;
  }
  if ((uint32_t)first >= self->loaded) {
    say(self, "e-[Nothing is loaded there]\r\n");
    return;
  }
  uint32_t left = self->loaded - (uint32_t)first;
  left = (uint32_t)most < left ? (uint32_t)most : left;
  for (uint32_t i = 0; i < left; ++i) {
    say(self, i % 8u == 0u ? "m-buffer-" : "-");
    say_hex(self, self->frame[(uint32_t)first + i], 2u);
    if (i % 8u == 7u || i + 1u == left) {
      end(self);
    }
  }
}

static void db(esnn_mlperf *self, char *rest) {
  const char *word = next_word(&rest);
  if (word == NULL) {
    say(self, "e-[db load N, db HH[HH]* or db print]\r\n");
  } else if (same(word, "load")) {
    load(self, next_word(&rest));
  } else if (same(word, "print")) {
    const char *count = next_word(&rest);
    print(self, count, next_word(&rest));
  } else {
    take(self, word);
  }
}

/* One score a class, 0.000 to 1.000: of the class decided 1.000, of the others floor(999 (u - low) / (high - low))
 * thousandths, u being the membranes at the stopping timestep. The largest is thus always the decision. */
static void results(esnn_mlperf *self) {
  esnn_decision found;
  int32_t low = 0;
  int32_t high = 0;
  int32_t code = esnn_result(self->ctx, &found);
  for (uint32_t k = 0; code >= 0 && k < self->model->classes; ++k) {
    int32_t u = 0;
    code = esnn_membrane(self->ctx, k, &u);
    low = k == 0u || u < low ? u : low;
    high = k == 0u || u > high ? u : high;
  }
  if (code < 0) {
    say(self, "e-[No results yet: infer first]\r\n");
    return;
  }
  uint32_t range = (uint32_t)high - (uint32_t)low;
  uint32_t shift = 0;
  while ((range >> shift) > 0xFFFFFFFFu / 999u) {
    ++shift;
  }
  say(self, "m-results-[");
  for (uint32_t k = 0; k < self->model->classes; ++k) {
    uint32_t score = 1000u;
    if (k != found.label) {
      int32_t u = low;
      (void)esnn_membrane(self->ctx, k, &u);
      uint32_t above = ((uint32_t)u - (uint32_t)low) >> shift;
      score = range == 0u ? 0u : above * 999u / (range >> shift);
    }
    if (k != 0u) {
      put(self, ',');
    }
    put(self, score == 1000u ? '1' : '0');
    put(self, '.');
    put(self, (char)('0' + (char)(score / 100u % 10u)));
    put(self, (char)('0' + (char)(score / 10u % 10u)));
    put(self, (char)('0' + (char)(score % 10u)));
  }
  say(self, "]\r\n");
}

/* From the frame to the decision, the spike encoder among it, `count` times: an ESNN_ code. */
static int32_t run(esnn_mlperf *self, uint32_t count) {
  int32_t code = ESNN_DECIDED;
  for (; count != 0u && code >= 0; --count) {
    code = esnn_push_frame(self->ctx, self->frame, self->model->input_bytes);
    while (code == ESNN_OK) {
      code = esnn_step_node(self->ctx);
      esnn_mlperf_poll(self);
    }
  }
  return code;
}

static void infer(esnn_mlperf *self, const char *measured, const char *before) {
  int32_t iterations = measured == NULL ? 1 : number(measured);
  int32_t warm_up = before == NULL ? 10 : number(before);
  int32_t most = (int32_t)ESNN_MLPERF_MOST;
  if (iterations <= 0 || iterations > most || warm_up < 0 || warm_up > most) {
    say(self, "e-[infer N W takes N from 1 and W from 0, up to ");
    say_number(self, ESNN_MLPERF_MOST);
    say(self, "]\r\n");
    return;
  }
  if (self->loading == 0u || self->loaded != self->model->input_bytes) {
    say(self, "e-[");
    say_number(self, self->loaded);
    say(self, " of ");
    say_number(self, self->model->input_bytes);
    say(self, " bytes are loaded: db load first]\r\n");
    return;
  }
  say(self, "m-warmup-start-");
  say_number(self, (uint32_t)warm_up);
  end(self);
  int32_t code = run(self, (uint32_t)warm_up);
  say(self, "m-warmup-done\r\nm-infer-start-");
  say_number(self, (uint32_t)iterations);
  end(self);
  /* Both are sent afterwards: the line takes no part in what is timed. */
  esnn_mlperf_poll(self);
  esnn_mlperf_time begin = self->time;
  code = code < 0 ? code : run(self, (uint32_t)iterations);
  esnn_mlperf_poll(self);
  esnn_mlperf_time done = self->time;
  if (code < 0) {
    say(self, "e-[The model does not run: ");
    say(self, esnn_strerror(code));
    say(self, "]\r\n");
    return;
  }
  say_time(self, &begin);
  say_time(self, &done);
  say(self, "m-infer-done\r\n");
  results(self);
}

static void answer(esnn_mlperf *self) {
  char *rest = self->command;
  const char *word = next_word(&rest);
  if (word == NULL) {
    return; /* '%' alone: whoever sends it wants to see m-ready */
  }
  if (same(word, "name")) {
    say(self, "m-name-dut-[");
    say_name(self, self->port->board);
    say(self, "]\r\n");
  } else if (same(word, "timestamp")) {
    timestamp(self);
  } else if (same(word, "profile")) {
    say(self, "m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[");
    say_name(self, self->model->name);
    say(self, "]\r\n");
  } else if (same(word, "help")) {
    help(self);
  } else if (same(word, "db")) {
    db(self, rest);
  } else if (same(word, "infer")) {
    const char *measured = next_word(&rest);
    infer(self, measured, next_word(&rest));
  } else if (same(word, "results")) {
    results(self);
  } else {
    say(self, "e-[Unknown command: ");
    say_name(self, word);
    say(self, "]\r\n");
  }
}

/* --- from outside ------------------------------------------------------------------------------ */

void esnn_mlperf_init(esnn_mlperf *self, esnn_ctx *ctx, const esnn_model *model, uint8_t *frame,
                      const esnn_mlperf_port *port) {
  self->ctx = ctx;
  self->model = model;
  self->port = port;
  self->frame = frame;
  self->loading = 0u;
  self->loaded = 0u;
  self->time.seconds = 0u;
  self->time.ticks = 0u;
  self->read = port->ticks();
  self->length = 0u;
}

void esnn_mlperf_start(esnn_mlperf *self, int32_t status) {
  say(self, "m-timestamp-mode-performance\r\n");
  timestamp(self);
  if (status < 0) {
    say(self, "e-[The model does not start: ");
    say(self, esnn_strerror(status));
    say(self, "]\r\n");
  }
  say(self, "m-init-done\r\nm-ready\r\n");
}

void esnn_mlperf_receive(esnn_mlperf *self, uint8_t byte) {
  if (byte != (uint8_t)'%') {
    if (self->length < ESNN_MLPERF_COMMAND) {
      self->command[self->length] = byte > 0x20u ? (char)byte : ' ';
    }
    /* Blanks before a command are none of it: a terminal ends lines after each '%'. */
    if (self->length <= ESNN_MLPERF_COMMAND && (self->length != 0u || byte > 0x20u)) {
      ++self->length;
    }
    return;
  }
  if (self->length > ESNN_MLPERF_COMMAND) {
    say(self, "e-[A command has at most ");
    say_number(self, ESNN_MLPERF_COMMAND);
    say(self, " characters]\r\n");
  } else {
    self->command[self->length] = '\0';
    answer(self);
  }
  self->length = 0u;
  say(self, "m-ready\r\n");
}

void esnn_mlperf_fault(esnn_mlperf *self, const uint32_t *words, uint32_t count) {
  static const char *const names[5] = {"pc", "lr", "exception", "fault", "sp"};
  say(self, "\r\ne-[The processor has stopped:");
  for (uint32_t i = 0; i < count && i < 5u; ++i) {
    put(self, ' ');
    say(self, names[i]);
    say(self, " 0x");
    say_hex(self, words[i], 8u);
  }
  say(self, "]\r\n");
}

/* Module initialisation, per-environment state, ownership of file descriptors, arguments and errors. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- file descriptors and their owners: the one thing that threads share ---- */

struct owned {
  int fd;
  struct instance *owner;
};

static pthread_mutex_t owned_lock = PTHREAD_MUTEX_INITIALIZER;
static struct owned *owned;
static size_t owned_count, owned_room;

static struct owned *find_owned(int fd) {
  for (size_t i = 0; i < owned_count; i++)
    if (owned[i].fd == fd) return &owned[i];
  return NULL;
}

void own_fd(struct instance *in, int fd) {
  pthread_mutex_lock(&owned_lock);
  struct owned *row = find_owned(fd);
  if (row == NULL && owned_count == owned_room) {
    size_t room = owned_room == 0 ? 16 : owned_room * 2;
    struct owned *more = realloc(owned, room * sizeof *more);
    if (more != NULL) {
      owned = more;
      owned_room = room;
    }
  }
  if (row == NULL && owned_count < owned_room) row = &owned[owned_count++];
  /* Without memory for the row the descriptor is merely not closed at the end of a worker. */
  if (row != NULL) *row = (struct owned){ .fd = fd, .owner = in };
  pthread_mutex_unlock(&owned_lock);
}

int disown_fd(int fd) {
  pthread_mutex_lock(&owned_lock);
  struct owned *row = find_owned(fd);
  if (row != NULL) *row = owned[--owned_count];
  pthread_mutex_unlock(&owned_lock);
  return row == NULL ? -EBADF : 0;
}

static void close_owned(struct instance *in) {
  pthread_mutex_lock(&owned_lock);
  for (size_t i = owned_count; i-- > 0;) {
    if (owned[i].owner != in) continue;
    close(owned[i].fd);
    owned[i] = owned[--owned_count];
  }
  if (owned_count == 0) {
    free(owned);
    owned = NULL;
    owned_room = 0;
  }
  pthread_mutex_unlock(&owned_lock);
}

/* close(fd): of a descriptor that the addon opened, in whichever thread. */
static napi_value js_close(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int32_t fd;
  if (!get_args(env, info, 1, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  if (disown_fd(fd) != 0) return fail(env, EBADF, "close", NULL);
  close(fd);
  return js_undefined(env);
}

/* adopt(fd): from now on the descriptor ends with the calling thread's environment. */
static napi_value js_adopt(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int32_t fd;
  if (!get_args(env, info, 1, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  if (disown_fd(fd) != 0) return fail(env, EBADF, "adopt", NULL);
  own_fd(instance_of(env), fd);
  return js_undefined(env);
}

/* ---- instance ---- */

struct instance *instance_of(napi_env env) {
  void *data = NULL;
  napi_get_instance_data(env, &data);
  return data;
}

int32_t new_handle(struct instance *in, enum handle_kind kind, int row) {
  in->generation = (in->generation + 1) % HANDLE_GENERATIONS;
  return (int32_t)((uint32_t)kind << 28 | in->generation << 8 | (uint32_t)row);
}

static void free_instance(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  struct instance *in = data;
  free_pollsets(in);
  free_queues(in);
  free_arenas(in);
  close_owned(in);
  free(in);
}

/* ---- arguments ---- */

napi_value misuse(napi_env env, const char *message) {
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
  return NULL;
}

static bool wrong(napi_env env, const char *what, const char *expected) {
  char message[160];
  snprintf(message, sizeof message, "%s must be %s", what, expected);
  misuse(env, message);
  return false;
}

bool get_args(napi_env env, napi_callback_info info, size_t wanted, napi_value *argv) {
  size_t argc = wanted;
  if (napi_get_cb_info(env, info, &argc, argv, NULL, NULL) != napi_ok || argc < wanted) {
    misuse(env, "too few arguments");
    return false;
  }
  return true;
}

bool arg_int(napi_env env, napi_value value, const char *what, int32_t *out) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok || !(number >= INT32_MIN && number <= INT32_MAX) ||
      number != (double)(int32_t)number)
    return wrong(env, what, "a 32-bit integer");
  *out = (int32_t)number;
  return true;
}

bool arg_string(napi_env env, napi_value value, const char *what, char *out, size_t size) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) return wrong(env, what, "a string");
  if (length >= size) return wrong(env, what, "shorter");
  napi_get_value_string_utf8(env, value, out, size, &length);
  if (strlen(out) != length) return wrong(env, what, "free of NUL bytes");
  return true;
}

/* The property, or NULL when it is undefined; sets *ok false when `object` is no object. */
static napi_value property(napi_env env, napi_value object, const char *key, bool *ok) {
  napi_value value;
  napi_valuetype type;
  *ok = napi_typeof(env, object, &type) == napi_ok && type == napi_object &&
        napi_get_named_property(env, object, key, &value) == napi_ok && napi_typeof(env, value, &type) == napi_ok;
  if (!*ok) {
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    if (!pending) wrong(env, "options", "an object");
    return NULL;
  }
  return type == napi_undefined ? NULL : value;
}

bool has_property(napi_env env, napi_value object, const char *key) {
  bool ok;
  return property(env, object, key, &ok) != NULL;
}

bool property_int(napi_env env, napi_value object, const char *key, int32_t *out) {
  bool ok;
  napi_value value = property(env, object, key, &ok);
  return value == NULL ? ok : arg_int(env, value, key, out);
}

bool property_bool(napi_env env, napi_value object, const char *key, bool *out) {
  bool ok;
  napi_value value = property(env, object, key, &ok);
  if (value == NULL) return ok;
  return napi_get_value_bool(env, value, out) == napi_ok || wrong(env, key, "true or false");
}

bool property_string(napi_env env, napi_value object, const char *key, char *out, size_t size) {
  bool ok;
  napi_value value = property(env, object, key, &ok);
  return value == NULL ? ok : arg_string(env, value, key, out, size);
}

/* ---- results ---- */

napi_value js_int(napi_env env, int32_t value) {
  napi_value result = NULL;
  napi_create_int32(env, value, &result);
  return result;
}

napi_value js_undefined(napi_env env) {
  napi_value result = NULL;
  napi_get_undefined(env, &result);
  return result;
}

void set_int(napi_env env, napi_value object, const char *key, int32_t value) {
  napi_set_named_property(env, object, key, js_int(env, value));
}

void set_bool(napi_env env, napi_value object, const char *key, bool value) {
  napi_value boxed;
  if (napi_get_boolean(env, value, &boxed) == napi_ok) napi_set_named_property(env, object, key, boxed);
}

void set_string(napi_env env, napi_value object, const char *key, const char *value) {
  napi_value text;
  if (napi_create_string_utf8(env, value, NAPI_AUTO_LENGTH, &text) == napi_ok)
    napi_set_named_property(env, object, key, text);
}

napi_value fail(napi_env env, int error, const char *syscall, const char *device) {
  char text[160];
  snprintf(text, sizeof text, "%s: %s", syscall, strerror(error));
  napi_value message, object;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message);
  napi_create_error(env, NULL, message, &object);
  set_int(env, object, "errno", error);
  set_string(env, object, "syscall", syscall);
  if (device != NULL) set_string(env, object, "device", device);
  napi_throw(env, object);
  return NULL;
}

void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback) {
  napi_value function;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, NULL, &function) == napi_ok)
    napi_set_named_property(env, exports, name, function);
}

NAPI_MODULE_INIT() {
  struct instance *in = calloc(1, sizeof *in);
  if (in == NULL || napi_set_instance_data(env, in, free_instance, NULL) != napi_ok) {
    free(in);
    napi_throw_error(env, NULL, "tapvs.node: no memory for the instance");
    return NULL;
  }
  in->env = env;
  export_function(env, exports, "close", js_close);
  export_function(env, exports, "adopt", js_adopt);
  init_tun(env, exports);
  init_packet(env, exports);
  init_netns(env, exports);
  init_link(env, exports);
  init_queue(env, exports);
  init_wait(env, exports);
  init_memory(env, exports);
  init_notify(env, exports);
  return exports;
}

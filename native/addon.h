/*
 * tapvs.node: what its C files share.
 *
 * One `struct instance` per JavaScript environment (main thread, each worker); nothing of it is shared between threads, except
 * the table of who owns which file descriptor (addon.c).
 *
 * Control calls throw an Error that carries errno, syscall and device; src/device/native.ts turns it into a NativeError.
 * Data calls return a count or -errno and throw only a TypeError, for a handle that is none.
 */
#ifndef TAPVS_ADDON_H
#define TAPVS_ADDON_H

#define NAPI_VERSION 8
#include <node_api.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Handles are small positive integers: kind << 28 | generation << 8 | row. A stale one is recognised by its generation. */
enum handle_kind { HANDLE_ARENA = 1, HANDLE_QUEUE = 2, HANDLE_POLLSET = 3 };
#define HANDLE_ROWS 256
#define HANDLE_GENERATIONS (1 << 20)

struct arena {
  int32_t handle;
  int users;          /* queues that point here, plus one while the handle is valid */
  napi_ref view;      /* keeps the buffer alive */
  uint8_t *base;
  size_t size;
};

struct queue;
struct pollset;

struct instance {
  napi_env env;
  uint32_t generation;
  struct arena *arenas[HANDLE_ROWS];
  struct queue *queues[HANDLE_ROWS];
  struct pollset *pollsets[HANDLE_ROWS];
};

struct instance *instance_of(napi_env env);
int32_t new_handle(struct instance *in, enum handle_kind kind, int row);

/* File descriptors that this environment opened: closed with it unless somebody closed or adopted them before. */
void own_fd(struct instance *in, int fd);
int disown_fd(int fd); /* 0, or -EBADF when no environment owns it */

/* Arguments. Each answers false with a TypeError pending. A missing optional property leaves *out as it was. */
bool get_args(napi_env env, napi_callback_info info, size_t wanted, napi_value *argv);
bool arg_int(napi_env env, napi_value value, const char *what, int32_t *out);
bool arg_string(napi_env env, napi_value value, const char *what, char *out, size_t size);
bool property_int(napi_env env, napi_value object, const char *key, int32_t *out);
bool property_bool(napi_env env, napi_value object, const char *key, bool *out);
bool property_string(napi_env env, napi_value object, const char *key, char *out, size_t size);
bool has_property(napi_env env, napi_value object, const char *key);

/* Results. */
napi_value js_int(napi_env env, int32_t value);
napi_value js_undefined(napi_env env);
void set_int(napi_env env, napi_value object, const char *key, int32_t value);
void set_bool(napi_env env, napi_value object, const char *key, bool value);
void set_string(napi_env env, napi_value object, const char *key, const char *value);
/* Error for a failed system call; device may be NULL. Answers NULL, so that `return fail(…)` reads well. */
napi_value fail(napi_env env, int error, const char *syscall, const char *device);
napi_value misuse(napi_env env, const char *message);

/*
 * Network namespaces belong to threads: enter, do it, leave. netns_enter answers 0 or an errno and stores what netns_leave needs;
 * fd -1 means "stay". netns_leave aborts the process when the way back is barred: a thread in a wrong namespace must not go on.
 */
int netns_enter(int fd, int *saved, const char **syscall);
void netns_leave(int saved);

/* Each file's functions, called from module initialisation. */
void export_function(napi_env env, napi_value exports, const char *name, napi_callback callback);
void init_tun(napi_env env, napi_value exports);
void init_packet(napi_env env, napi_value exports);
void init_netns(napi_env env, napi_value exports);
void init_link(napi_env env, napi_value exports);
void init_queue(napi_env env, napi_value exports);
void init_wait(napi_env env, napi_value exports);
void init_memory(napi_env env, napi_value exports);
void init_notify(napi_env env, napi_value exports);
void free_queues(struct instance *in);
void free_pollsets(struct instance *in);
void free_arenas(struct instance *in);

#endif

/* Waiting and waking: poll(2) on a settled set, eventfd(2), the monotonic clock. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <sched.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define POLLSET_MAX 31 /* the ready set is one non-negative int32 */

struct pollset {
  int32_t handle;
  nfds_t count;
  struct pollfd fds[POLLSET_MAX];
};

static void free_pollset(struct instance *in, int row) {
  free(in->pollsets[row]);
  in->pollsets[row] = NULL;
}

void free_pollsets(struct instance *in) {
  for (int row = 0; row < HANDLE_ROWS; row++) free_pollset(in, row);
}

static struct pollset *pollset_of(napi_env env, napi_value value) {
  int32_t handle;
  if (napi_get_value_int32(env, value, &handle) == napi_ok) {
    struct pollset *set = instance_of(env)->pollsets[handle & (HANDLE_ROWS - 1)];
    if (set != NULL && set->handle == handle) return set;
  }
  misuse(env, "not a pollset of this thread");
  return NULL;
}

/* createPollset(fds) → handle */
static napi_value js_create_pollset(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  uint32_t count;
  if (!get_args(env, info, 1, argv)) return NULL;
  if (napi_get_array_length(env, argv[0], &count) != napi_ok || count > POLLSET_MAX)
    return misuse(env, "fds must be an array of at most 31 file descriptors");
  struct instance *in = instance_of(env);
  int row = 0;
  while (row < HANDLE_ROWS && in->pollsets[row] != NULL) row++;
  struct pollset *set = row < HANDLE_ROWS ? calloc(1, sizeof *set) : NULL;
  if (set == NULL) return fail(env, ENOMEM, "createPollset", NULL);
  set->count = count;
  for (uint32_t i = 0; i < count; i++) {
    napi_value element;
    int32_t fd = -1;
    if (napi_get_element(env, argv[0], i, &element) != napi_ok || !arg_int(env, element, "each fd", &fd)) {
      free(set);
      return NULL;
    }
    set->fds[i] = (struct pollfd){ .fd = fd, .events = POLLIN };
  }
  set->handle = new_handle(in, HANDLE_POLLSET, row);
  in->pollsets[row] = set;
  return js_int(env, set->handle);
}

static napi_value js_destroy_pollset(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  if (!get_args(env, info, 1, argv)) return NULL;
  struct pollset *set = pollset_of(env, argv[0]);
  if (set == NULL) return NULL;
  free_pollset(instance_of(env), set->handle & (HANDLE_ROWS - 1));
  return js_undefined(env);
}

/* poll(pollset, timeoutMs) → bit i when fds[i] is readable or broken (its rx says how); 0 on timeout or a signal; -errno */
static napi_value js_poll(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  int32_t timeout;
  if (!get_args(env, info, 2, argv)) return NULL;
  struct pollset *set = pollset_of(env, argv[0]);
  if (set == NULL || !arg_int(env, argv[1], "timeoutMs", &timeout)) return NULL;
  int ready = poll(set->fds, set->count, timeout);
  if (ready < 0) return js_int(env, errno == EINTR ? 0 : -errno);
  int32_t mask = 0;
  for (nfds_t i = 0; ready > 0 && i < set->count; i++) {
    if (set->fds[i].revents == 0) continue;
    mask |= (int32_t)(1u << i);
    ready--;
  }
  return js_int(env, mask);
}

/* eventfd() → fd */
static napi_value js_eventfd(napi_env env, napi_callback_info info) {
  (void)info;
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return fail(env, errno, "eventfd", NULL);
  own_fd(instance_of(env), fd);
  return js_int(env, fd);
}

/* eventfdSignal(fd) → 0 or -errno; a counter that is full wakes as well, so that is success */
static napi_value js_eventfd_signal(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int32_t fd;
  if (!get_args(env, info, 1, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  const uint64_t one = 1;
  ssize_t written = write(fd, &one, sizeof one);
  return js_int(env, written == sizeof one || errno == EAGAIN ? 0 : -errno);
}

/* eventfdDrain(fd) → 1 when it was signalled, 0 when not, or -errno */
static napi_value js_eventfd_drain(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int32_t fd;
  if (!get_args(env, info, 1, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  uint64_t count;
  ssize_t got = read(fd, &count, sizeof count);
  return js_int(env, got == sizeof count ? 1 : errno == EAGAIN ? 0 : -errno);
}

/* clockMonotonicUs() → microseconds, a double with nanosecond steps */
static napi_value js_clock(napi_env env, napi_callback_info info) {
  (void)info;
  struct timespec now;
  napi_value result = NULL;
  clock_gettime(CLOCK_MONOTONIC, &now);
  napi_create_double(env, (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3, &result);
  return result;
}

/* yield(): lets another thread of this CPU run, if one waits (sched_yield(2)) */
static napi_value js_yield(napi_env env, napi_callback_info info) {
  (void)info;
  sched_yield();
  return js_undefined(env);
}

void init_wait(napi_env env, napi_value exports) {
  export_function(env, exports, "createPollset", js_create_pollset);
  export_function(env, exports, "destroyPollset", js_destroy_pollset);
  export_function(env, exports, "poll", js_poll);
  export_function(env, exports, "eventfd", js_eventfd);
  export_function(env, exports, "eventfdSignal", js_eventfd_signal);
  export_function(env, exports, "eventfdDrain", js_eventfd_drain);
  export_function(env, exports, "clockMonotonicUs", js_clock);
  export_function(env, exports, "yield", js_yield);
}

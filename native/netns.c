/* Network namespaces: setns(2) moves the calling thread only, so it is always done there and back within one call. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int netns_enter(int fd, int *saved, const char **syscall) {
  *saved = -1;
  if (fd < 0) return 0;
  *syscall = "open /proc/thread-self/ns/net";
  int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (here < 0) return errno;
  *syscall = "setns";
  if (setns(fd, CLONE_NEWNET) != 0) {
    int error = errno;
    close(here);
    return error;
  }
  *saved = here;
  return 0;
}

void netns_leave(int saved) {
  if (saved < 0) return;
  if (setns(saved, CLONE_NEWNET) != 0) {
    perror("tapvs.node: cannot return to the original network namespace");
    abort();
  }
  close(saved);
}

/* openNetns(path) → fd */
static napi_value js_open_netns(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  char path[PATH_MAX];
  if (!get_args(env, info, 1, argv) || !arg_string(env, argv[0], "path", path, sizeof path)) return NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return fail(env, errno, "open", path);
  own_fd(instance_of(env), fd);
  return js_int(env, fd);
}

/* enterNetns(fd) → saved, for leaveNetns; native.ts pairs them with try and finally. */
static napi_value js_enter_netns(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int32_t fd;
  int saved;
  const char *syscall = NULL;
  if (!get_args(env, info, 1, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  if (fd < 0) return misuse(env, "fd must be an open namespace");
  int error = netns_enter(fd, &saved, &syscall);
  if (error != 0) return fail(env, error, syscall, NULL);
  own_fd(instance_of(env), saved);
  return js_int(env, saved);
}

static napi_value js_leave_netns(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int32_t saved;
  if (!get_args(env, info, 1, argv) || !arg_int(env, argv[0], "saved", &saved)) return NULL;
  if (disown_fd(saved) != 0) return fail(env, EBADF, "setns", NULL);
  netns_leave(saved);
  return js_undefined(env);
}

void init_netns(napi_env env, napi_value exports) {
  export_function(env, exports, "openNetns", js_open_netns);
  export_function(env, exports, "enterNetns", js_enter_netns);
  export_function(env, exports, "leaveNetns", js_leave_netns);
}

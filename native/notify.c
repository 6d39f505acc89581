/*
 * What a service and its manager say to each other: datagrams of sd_notify(3) with file descriptors beside them (SCM_RIGHTS, unix(7)), and the
 * descriptors that a manager hands down (sd_listen_fds(3)).
 */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TEXT_MAX 4096
#define FDS_MAX 253 /* SCM_MAX_FD: the kernel refuses more */

/* The address of a path; one that begins with @ is abstract. */
static bool arg_address(napi_env env, napi_value value, struct sockaddr_un *at, socklen_t *length, char *shown) {
  *at = (struct sockaddr_un){ .sun_family = AF_UNIX };
  if (!arg_string(env, value, "path", at->sun_path, sizeof at->sun_path)) return false;
  memcpy(shown, at->sun_path, sizeof at->sun_path);
  *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(at->sun_path));
  if (at->sun_path[0] == '@') at->sun_path[0] = '\0';
  else ++*length;
  return true;
}

/* notify(path, text, fds): one datagram; the descriptors stay the caller's as well */
static napi_value js_notify(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  struct sockaddr_un at;
  char shown[sizeof at.sun_path], text[TEXT_MAX];
  uint32_t count;
  if (!get_args(env, info, 3, argv)) return NULL;
  struct msghdr message = { .msg_name = &at };
  if (!arg_address(env, argv[0], &at, &message.msg_namelen, shown) || !arg_string(env, argv[1], "text", text, sizeof text)) return NULL;
  if (napi_get_array_length(env, argv[2], &count) != napi_ok || count > FDS_MAX)
    return misuse(env, "fds must be an array of at most 253 file descriptors");
  struct iovec line = { .iov_base = text, .iov_len = strlen(text) };
  message.msg_iov = &line;
  message.msg_iovlen = 1;
  union {
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    struct cmsghdr align;
  } control;
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    memset(control.bytes, 0, message.msg_controllen);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    *rights = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int)) };
    for (uint32_t i = 0; i < count; i++) {
      napi_value element;
      int32_t fd;
      if (napi_get_element(env, argv[2], i, &element) != napi_ok || !arg_int(env, element, "each fd", &fd)) return NULL;
      memcpy(CMSG_DATA(rights) + i * sizeof(int), &fd, sizeof fd);
    }
  }
  int out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (out < 0) return fail(env, errno, "socket AF_UNIX", shown);
  int error = sendmsg(out, &message, MSG_NOSIGNAL) < 0 ? errno : 0;
  close(out);
  return error == 0 ? js_undefined(env) : fail(env, error, "sendmsg", shown);
}

/* noticeSocket(path) → fd of what is said there, nonblocking; each datagram says who sent it */
static napi_value js_notice_socket(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  struct sockaddr_un at;
  socklen_t length;
  char shown[sizeof at.sun_path];
  const int on = 1;
  if (!get_args(env, info, 1, argv) || !arg_address(env, argv[0], &at, &length, shown)) return NULL;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fail(env, errno, "socket AF_UNIX", shown);
  if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0 || bind(fd, (struct sockaddr *)&at, length) != 0) {
    int error = errno;
    close(fd);
    return fail(env, error, "bind", shown);
  }
  own_fd(instance_of(env), fd);
  return js_int(env, fd);
}

/* receiveNotice(fd) → { pid, text, fds }, or null when nothing waits */
static napi_value js_receive_notice(napi_env env, napi_callback_info info) {
  napi_value argv[1], result, fds;
  int32_t fd;
  if (!get_args(env, info, 1, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  char text[TEXT_MAX + 1];
  union {
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    struct cmsghdr align;
  } control;
  struct iovec line = { .iov_base = text, .iov_len = TEXT_MAX };
  struct msghdr message = { .msg_iov = &line, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
  ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return napi_get_null(env, &result) == napi_ok ? result : NULL;
  if (got < 0) return fail(env, errno, "recvmsg", NULL);
  text[got] = '\0';
  struct instance *in = instance_of(env);
  uint32_t count = 0;
  int32_t pid = 0;
  if (napi_create_object(env, &result) != napi_ok || napi_create_array(env, &fds) != napi_ok) result = NULL;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part != NULL; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET) continue;
    if (part->cmsg_type == SCM_CREDENTIALS) {
      struct ucred sender;
      memcpy(&sender, CMSG_DATA(part), sizeof sender);
      pid = sender.pid;
    }
    if (part->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; at + sizeof(int) <= part->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
      int passed;
      memcpy(&passed, CMSG_DATA(part) + at, sizeof passed);
      own_fd(in, passed);
      if (result != NULL) napi_set_element(env, fds, count++, js_int(env, passed));
    }
  }
  if (result == NULL) return fail(env, ENOMEM, "recvmsg", NULL);
  set_int(env, result, "pid", pid);
  set_string(env, result, "text", text);
  napi_set_named_property(env, result, "fds", fds);
  return result;
}

/* inherit(fd): a descriptor that this process was started with becomes ours: closed on exec, and with the calling thread's environment */
static napi_value js_inherit(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int32_t fd;
  if (!get_args(env, info, 1, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return fail(env, errno, "fcntl", NULL);
  own_fd(instance_of(env), fd);
  return js_undefined(env);
}

void init_notify(napi_env env, napi_value exports) {
  export_function(env, exports, "notify", js_notify);
  export_function(env, exports, "noticeSocket", js_notice_socket);
  export_function(env, exports, "receiveNotice", js_receive_notice);
  export_function(env, exports, "inherit", js_inherit);
}

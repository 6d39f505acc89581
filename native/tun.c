/* TUN and TAP devices: open, offloads, persistence, queues (drivers/net/tun.c, Documentation/networking/tuntap.rst). */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define VNET_HEADER 10

struct tun_options {
  char name[IFNAMSIZ];
  short flags;
  bool persist;
};

/* Runs inside the wanted namespace: the kernel binds the descriptor to the namespace that opens it, not to that of the ioctl. */
static int open_tun(struct tun_options *o, const char **syscall) {
  *syscall = "open /dev/net/tun";
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;

  struct ifreq ifr = { 0 };
  memcpy(ifr.ifr_name, o->name, IFNAMSIZ);
  ifr.ifr_flags = o->flags;
  *syscall = "ioctl TUNSETIFF";
  if (ioctl(fd, TUNSETIFF, &ifr) != 0) goto failed;
  memcpy(o->name, ifr.ifr_name, IFNAMSIZ);

  if (o->flags & IFF_VNET_HDR) {
    int size = VNET_HEADER, little = 1;
    *syscall = "ioctl TUNSETVNETHDRSZ";
    if (ioctl(fd, TUNSETVNETHDRSZ, &size) != 0) goto failed;
    *syscall = "ioctl TUNSETVNETLE";
    if (ioctl(fd, TUNSETVNETLE, &little) != 0) goto failed;
  }
  *syscall = "ioctl TUNSETPERSIST";
  if (o->persist && ioctl(fd, TUNSETPERSIST, 1) != 0) goto failed;
  return fd;

failed:;
  int error = errno;
  close(fd);
  return -error;
}

/* openTun({ name, tap, netnsFd, multiQueue, vnetHdr, persist, napi }) → { fd, name } */
static napi_value js_open_tun(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  struct tun_options o = { 0 };
  bool tap = false, multi_queue = false, vnet_hdr = false, napi = false;
  int32_t netns = -1;
  if (!get_args(env, info, 1, argv) || !property_string(env, argv[0], "name", o.name, sizeof o.name) ||
      !property_bool(env, argv[0], "tap", &tap) || !property_int(env, argv[0], "netnsFd", &netns) ||
      !property_bool(env, argv[0], "multiQueue", &multi_queue) || !property_bool(env, argv[0], "vnetHdr", &vnet_hdr) ||
      !property_bool(env, argv[0], "persist", &o.persist) || !property_bool(env, argv[0], "napi", &napi))
    return NULL;
  o.flags = (short)(IFF_NO_PI | (tap ? IFF_TAP : IFF_TUN) | (multi_queue ? IFF_MULTI_QUEUE : 0) |
                    (vnet_hdr ? IFF_VNET_HDR : 0) | (napi ? IFF_NAPI : 0));

  const char *syscall = NULL;
  int saved, fd = -netns_enter(netns, &saved, &syscall);
  if (fd == 0) {
    fd = open_tun(&o, &syscall);
    netns_leave(saved);
  }
  if (fd < 0) return fail(env, -fd, syscall, o.name);
  own_fd(instance_of(env), fd);

  napi_value result;
  napi_create_object(env, &result);
  set_int(env, result, "fd", fd);
  set_string(env, result, "name", o.name);
  return result;
}

/* setOffload(fd, flags) → the flags that the kernel took (it is asked again without UDP segmentation when it does not know it) */
static napi_value js_set_offload(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  int32_t fd, flags;
  if (!get_args(env, info, 2, argv) || !arg_int(env, argv[0], "fd", &fd) || !arg_int(env, argv[1], "flags", &flags)) return NULL;
  if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags) == 0) return js_int(env, flags);
  int without = flags & ~(TUN_F_USO4 | TUN_F_USO6);
  if (errno == EINVAL && without != flags && ioctl(fd, TUNSETOFFLOAD, (unsigned long)without) == 0) return js_int(env, without);
  return fail(env, errno, "ioctl TUNSETOFFLOAD", NULL);
}

/* setPersist(fd, persist) */
static napi_value js_set_persist(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  int32_t fd;
  bool persist;
  if (!get_args(env, info, 2, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  if (napi_get_value_bool(env, argv[1], &persist) != napi_ok) return misuse(env, "persist must be true or false");
  if (ioctl(fd, TUNSETPERSIST, persist ? 1 : 0) != 0) return fail(env, errno, "ioctl TUNSETPERSIST", NULL);
  return js_undefined(env);
}

/* setQueue(fd, attach) */
static napi_value js_set_queue(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  int32_t fd;
  bool attach;
  if (!get_args(env, info, 2, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  if (napi_get_value_bool(env, argv[1], &attach) != napi_ok) return misuse(env, "attach must be true or false");
  struct ifreq ifr = { .ifr_flags = (short)(attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE) };
  if (ioctl(fd, TUNSETQUEUE, &ifr) != 0) return fail(env, errno, "ioctl TUNSETQUEUE", NULL);
  return js_undefined(env);
}

void init_tun(napi_env env, napi_value exports) {
  export_function(env, exports, "openTun", js_open_tun);
  export_function(env, exports, "setOffload", js_set_offload);
  export_function(env, exports, "setPersist", js_set_persist);
  export_function(env, exports, "setQueue", js_set_queue);
}

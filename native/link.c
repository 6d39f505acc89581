/* The few properties of an interface that a device needs (netdevice(7)); everything else about links is rtnetlink's. */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A socket of the namespace, through which ioctls reach its interfaces; or -errno. */
static int link_socket(int netns, const char **syscall) {
  int saved, fd = -netns_enter(netns, &saved, syscall);
  if (fd != 0) return fd;
  *syscall = "socket";
  fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fd = -errno;
  netns_leave(saved);
  return fd;
}

struct step {
  unsigned long request;
  const char *name;
};

/* linkGet(name, netnsFd) → { ifindex, mac, mtu, isUp, isRunning }; mac is null where the link has no Ethernet address */
static napi_value js_link_get(napi_env env, napi_callback_info info) {
  static const struct step steps[] = {
    { SIOCGIFINDEX, "ioctl SIOCGIFINDEX" },
    { SIOCGIFMTU, "ioctl SIOCGIFMTU" },
    { SIOCGIFFLAGS, "ioctl SIOCGIFFLAGS" },
    { SIOCGIFHWADDR, "ioctl SIOCGIFHWADDR" },
  };
  napi_value argv[2];
  struct ifreq asked = { 0 }, got[4];
  int32_t netns;
  const char *syscall = NULL;
  if (!get_args(env, info, 2, argv) || !arg_string(env, argv[0], "name", asked.ifr_name, IFNAMSIZ) ||
      !arg_int(env, argv[1], "netnsFd", &netns))
    return NULL;
  int fd = link_socket(netns, &syscall);
  if (fd < 0) return fail(env, -fd, syscall, asked.ifr_name);
  for (size_t i = 0; i < 4; i++) {
    got[i] = asked;
    if (ioctl(fd, steps[i].request, &got[i]) == 0) continue;
    int error = errno;
    close(fd);
    return fail(env, error, steps[i].name, asked.ifr_name);
  }
  close(fd);

  napi_value result, null;
  napi_create_object(env, &result);
  napi_get_null(env, &null);
  set_int(env, result, "ifindex", got[0].ifr_ifindex);
  set_int(env, result, "mtu", got[1].ifr_mtu);
  set_bool(env, result, "isUp", (got[2].ifr_flags & IFF_UP) != 0);
  set_bool(env, result, "isRunning", (got[2].ifr_flags & IFF_RUNNING) != 0);
  napi_set_named_property(env, result, "mac", null);
  if (got[3].ifr_hwaddr.sa_family == ARPHRD_ETHER) {
    char text[18];
    const uint8_t *m = (const uint8_t *)got[3].ifr_hwaddr.sa_data;
    snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
    set_string(env, result, "mac", text);
  }
  return result;
}

/* One ioctl on one interface, with or without a look at what is there before. */
static napi_value set_link(napi_env env, struct ifreq *ifr, int netns, unsigned long request, const char *name) {
  const char *syscall = NULL;
  int fd = link_socket(netns, &syscall);
  if (fd < 0) return fail(env, -fd, syscall, ifr->ifr_name);
  int error = 0;
  if (request == SIOCSIFFLAGS) {
    struct ifreq now = *ifr;
    syscall = "ioctl SIOCGIFFLAGS";
    if (ioctl(fd, SIOCGIFFLAGS, &now) != 0) error = errno;
    ifr->ifr_flags = (short)((now.ifr_flags & ~IFF_UP) | ifr->ifr_flags);
  }
  if (error == 0) {
    syscall = name;
    if (ioctl(fd, request, ifr) != 0) error = errno;
  }
  close(fd);
  return error == 0 ? js_undefined(env) : fail(env, error, syscall, ifr->ifr_name);
}

/* linkSetUp(name, netnsFd, up) */
static napi_value js_link_set_up(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  struct ifreq ifr = { 0 };
  int32_t netns;
  bool up;
  if (!get_args(env, info, 3, argv) || !arg_string(env, argv[0], "name", ifr.ifr_name, IFNAMSIZ) ||
      !arg_int(env, argv[1], "netnsFd", &netns))
    return NULL;
  if (napi_get_value_bool(env, argv[2], &up) != napi_ok) return misuse(env, "up must be true or false");
  ifr.ifr_flags = up ? IFF_UP : 0;
  return set_link(env, &ifr, netns, SIOCSIFFLAGS, "ioctl SIOCSIFFLAGS");
}

/* linkSetMtu(name, netnsFd, mtu) */
static napi_value js_link_set_mtu(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  struct ifreq ifr = { 0 };
  int32_t netns, mtu;
  if (!get_args(env, info, 3, argv) || !arg_string(env, argv[0], "name", ifr.ifr_name, IFNAMSIZ) ||
      !arg_int(env, argv[1], "netnsFd", &netns) || !arg_int(env, argv[2], "mtu", &mtu))
    return NULL;
  ifr.ifr_mtu = mtu;
  return set_link(env, &ifr, netns, SIOCSIFMTU, "ioctl SIOCSIFMTU");
}

/* linkSetQueueLength(name, netnsFd, frames): what waits for a reader of a TUN or TAP before the kernel drops */
static napi_value js_link_set_queue_length(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  struct ifreq ifr = { 0 };
  int32_t netns, frames;
  if (!get_args(env, info, 3, argv) || !arg_string(env, argv[0], "name", ifr.ifr_name, IFNAMSIZ) ||
      !arg_int(env, argv[1], "netnsFd", &netns) || !arg_int(env, argv[2], "frames", &frames))
    return NULL;
  ifr.ifr_qlen = frames;
  return set_link(env, &ifr, netns, SIOCSIFTXQLEN, "ioctl SIOCSIFTXQLEN");
}

/* linkSetMac(name, netnsFd, mac), mac as six colon-separated bytes */
static napi_value js_link_set_mac(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  struct ifreq ifr = { 0 };
  int32_t netns;
  char text[18];
  unsigned m[6];
  int used = 0;
  if (!get_args(env, info, 3, argv) || !arg_string(env, argv[0], "name", ifr.ifr_name, IFNAMSIZ) ||
      !arg_int(env, argv[1], "netnsFd", &netns) || !arg_string(env, argv[2], "mac", text, sizeof text))
    return NULL;
  if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5], &used) != 6 || text[used] != '\0')
    return misuse(env, "mac must look like 02:00:00:00:00:01");
  ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  for (int i = 0; i < 6; i++) ifr.ifr_hwaddr.sa_data[i] = (char)m[i];
  return set_link(env, &ifr, netns, SIOCSIFHWADDR, "ioctl SIOCSIFHWADDR");
}

void init_link(napi_env env, napi_value exports) {
  export_function(env, exports, "linkGet", js_link_get);
  export_function(env, exports, "linkSetUp", js_link_set_up);
  export_function(env, exports, "linkSetMtu", js_link_set_mtu);
  export_function(env, exports, "linkSetQueueLength", js_link_set_queue_length);
  export_function(env, exports, "linkSetMac", js_link_set_mac);
}

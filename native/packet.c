/* AF_PACKET sockets bound to one interface (packet(7), net/packet/af_packet.c). */
#define _GNU_SOURCE
#include "addon.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct packet_options {
  char interface[IFNAMSIZ];
  bool vnet_hdr, qdisc_bypass, promiscuous;
  int buffer; /* bytes, for each direction */
};

struct packet_result {
  int ifindex, mtu;
  uint8_t mac[6];
};

/* The forced form passes net.core.rmem_max but needs CAP_NET_ADMIN; without it the limit applies, which is no error. */
static void set_buffer(int fd, int forced, int plain, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) != 0) setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
}

/* Protocol 0 until bind: no frame is queued before the socket is as it should be. */
static int open_packet(const struct packet_options *o, struct packet_result *r, const char **syscall) {
  *syscall = "socket AF_PACKET";
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;

  struct ifreq ifr = { 0 };
  const int one = 1;
  memcpy(ifr.ifr_name, o->interface, IFNAMSIZ);
  *syscall = "ioctl SIOCGIFINDEX";
  if (ioctl(fd, SIOCGIFINDEX, &ifr) != 0) goto failed;
  r->ifindex = ifr.ifr_ifindex;
  *syscall = "ioctl SIOCGIFMTU";
  if (ioctl(fd, SIOCGIFMTU, &ifr) != 0) goto failed;
  r->mtu = ifr.ifr_mtu;
  *syscall = "ioctl SIOCGIFHWADDR";
  if (ioctl(fd, SIOCGIFHWADDR, &ifr) != 0) goto failed;
  if (ifr.ifr_hwaddr.sa_family != ARPHRD_ETHER && ifr.ifr_hwaddr.sa_family != ARPHRD_LOOPBACK) {
    errno = EPROTONOSUPPORT; /* no Ethernet header on it */
    goto failed;
  }
  memcpy(r->mac, ifr.ifr_hwaddr.sa_data, 6);

  *syscall = "setsockopt PACKET_VNET_HDR";
  if (o->vnet_hdr && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) != 0) goto failed;
  *syscall = "setsockopt PACKET_IGNORE_OUTGOING";
  if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) != 0) goto failed;
  *syscall = "setsockopt PACKET_QDISC_BYPASS";
  if (o->qdisc_bypass && setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) != 0) goto failed;
  set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, o->buffer);
  set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, o->buffer);

  struct packet_mreq promiscuous = { .mr_ifindex = r->ifindex, .mr_type = PACKET_MR_PROMISC };
  *syscall = "setsockopt PACKET_ADD_MEMBERSHIP";
  if (o->promiscuous && setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) != 0) goto failed;

  struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = r->ifindex };
  *syscall = "bind";
  if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0) goto failed;
  return fd;

failed:;
  int error = errno;
  close(fd);
  return -error;
}

/* openPacket({ interface, netnsFd, vnetHdr, qdiscBypass, promiscuous, bufferBytes }) → { fd, ifindex, mac, mtu } */
static napi_value js_open_packet(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  struct packet_options o = { .qdisc_bypass = true, .promiscuous = true, .buffer = 32 << 20 };
  struct packet_result r = { 0 };
  int32_t netns = -1;
  if (!get_args(env, info, 1, argv) || !property_string(env, argv[0], "interface", o.interface, sizeof o.interface) ||
      !property_int(env, argv[0], "netnsFd", &netns) || !property_bool(env, argv[0], "vnetHdr", &o.vnet_hdr) ||
      !property_bool(env, argv[0], "qdiscBypass", &o.qdisc_bypass) ||
      !property_bool(env, argv[0], "promiscuous", &o.promiscuous) || !property_int(env, argv[0], "bufferBytes", &o.buffer))
    return NULL;

  const char *syscall = NULL;
  int saved, fd = -netns_enter(netns, &saved, &syscall);
  if (fd == 0) {
    fd = open_packet(&o, &r, &syscall);
    netns_leave(saved);
  }
  if (fd < 0) return fail(env, -fd, syscall, o.interface);
  own_fd(instance_of(env), fd);

  char mac[18];
  snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", r.mac[0], r.mac[1], r.mac[2], r.mac[3], r.mac[4], r.mac[5]);
  napi_value result;
  napi_create_object(env, &result);
  set_int(env, result, "fd", fd);
  set_int(env, result, "ifindex", r.ifindex);
  set_string(env, result, "mac", mac);
  set_int(env, result, "mtu", r.mtu);
  return result;
}

void init_packet(napi_env env, napi_value exports) {
  export_function(env, exports, "openPacket", js_open_packet);
}

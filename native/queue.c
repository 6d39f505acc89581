/*
 * The data path: frames in batches between a descriptor and an arena.
 *
 *   rx: [offset, length] [offset, length] …     an Int32Array that JavaScript and this file both write
 *            │                                   rx  in: offset      out: length
 *            ▼                                   tx  in: both        out: length = -errno where the frame was refused
 *   arena: ··[vnet header 10][frame ········]··
 *
 * Every entry is checked and copied into an iovec before the first system call, so that nothing that another thread writes
 * meanwhile can point outside the arena. Nothing here allocates after createQueue, and nothing calls JavaScript.
 */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define BATCH 64           /* messages in one recvmmsg or sendmmsg */
#define QUEUE_MAX 4096     /* entries of rx and tx */
#define VNET_HEADER 10
#define LONGEST_FRAME 65600 /* a 64 KiB IP packet with vnet, Ethernet and VLAN headers is shorter */

struct ring {
  napi_ref view; /* keeps the Int32Array alive */
  int32_t *entries;
  uint32_t size;
};

struct queue {
  int32_t handle;
  int fd;
  bool is_packet;
  struct arena *arena;
  uint32_t room; /* bytes that rx may write at an offset */
  uint32_t least; /* shortest thing to send: the vnet header and one byte */
  struct ring rx, tx;
  uint8_t overflow; /* TUN: the byte that shows that a frame was longer than the room */
  struct iovec *iov;
  struct mmsghdr messages[BATCH];
};

/* ---- arenas ---- */

static void drop_arena(struct instance *in, struct arena *arena) {
  if (--arena->users > 0) return;
  napi_delete_reference(in->env, arena->view);
  free(arena);
}

void free_arenas(struct instance *in) {
  for (int row = 0; row < HANDLE_ROWS; row++) {
    if (in->arenas[row] != NULL) drop_arena(in, in->arenas[row]);
    in->arenas[row] = NULL;
  }
}

static struct arena *arena_of(napi_env env, napi_value value) {
  int32_t handle;
  if (napi_get_value_int32(env, value, &handle) == napi_ok) {
    struct arena *arena = instance_of(env)->arenas[handle & (HANDLE_ROWS - 1)];
    if (arena != NULL && arena->handle == handle) return arena;
  }
  misuse(env, "not an arena of this thread");
  return NULL;
}

/* registerArena(bytes: Uint8Array) → handle. native.ts makes the view, over an ArrayBuffer or a SharedArrayBuffer. */
static napi_value js_register_arena(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  napi_typedarray_type type;
  size_t size;
  void *base;
  if (!get_args(env, info, 1, argv)) return NULL;
  if (napi_get_typedarray_info(env, argv[0], &type, &size, &base, NULL, NULL) != napi_ok || type != napi_uint8_array || size == 0)
    return misuse(env, "the arena must be bytes");
  struct instance *in = instance_of(env);
  int row = 0;
  while (row < HANDLE_ROWS && in->arenas[row] != NULL) row++;
  struct arena *arena = row < HANDLE_ROWS ? calloc(1, sizeof *arena) : NULL;
  if (arena == NULL) return fail(env, ENOMEM, "registerArena", NULL);
  if (napi_create_reference(env, argv[0], 1, &arena->view) != napi_ok) {
    free(arena);
    return fail(env, ENOMEM, "registerArena", NULL);
  }
  arena->users = 1;
  arena->base = base;
  arena->size = size;
  arena->handle = new_handle(in, HANDLE_ARENA, row);
  in->arenas[row] = arena;
  return js_int(env, arena->handle);
}

/* releaseArena(handle): the buffer is let go when the last queue on it is destroyed */
static napi_value js_release_arena(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  if (!get_args(env, info, 1, argv)) return NULL;
  struct arena *arena = arena_of(env, argv[0]);
  if (arena == NULL) return NULL;
  struct instance *in = instance_of(env);
  in->arenas[arena->handle & (HANDLE_ROWS - 1)] = NULL;
  drop_arena(in, arena);
  return js_undefined(env);
}

/* ---- queues ---- */

static void free_queue(struct instance *in, struct queue *q) {
  if (q->rx.view != NULL) napi_delete_reference(in->env, q->rx.view);
  if (q->tx.view != NULL) napi_delete_reference(in->env, q->tx.view);
  if (q->arena != NULL) drop_arena(in, q->arena);
  free(q->iov);
  free(q);
}

void free_queues(struct instance *in) {
  for (int row = 0; row < HANDLE_ROWS; row++) {
    if (in->queues[row] != NULL) free_queue(in, in->queues[row]);
    in->queues[row] = NULL;
  }
}

static struct queue *queue_of(napi_env env, napi_value value) {
  int32_t handle;
  if (napi_get_value_int32(env, value, &handle) == napi_ok) {
    struct queue *q = instance_of(env)->queues[handle & (HANDLE_ROWS - 1)];
    if (q != NULL && q->handle == handle) return q;
  }
  misuse(env, "not a queue of this thread");
  return NULL;
}

static bool take_ring(napi_env env, napi_value options, const char *key, struct ring *ring) {
  napi_value view;
  napi_typedarray_type type;
  size_t length;
  void *entries;
  if (napi_get_named_property(env, options, key, &view) != napi_ok ||
      napi_get_typedarray_info(env, view, &type, &length, &entries, NULL, NULL) != napi_ok || type != napi_int32_array ||
      length < 2 || length % 2 != 0 || length / 2 > QUEUE_MAX) {
    misuse(env, "rx and tx must be Int32Arrays of [offset, length] pairs, at most 4096");
    return false;
  }
  ring->entries = entries;
  ring->size = (uint32_t)(length / 2);
  return napi_create_reference(env, view, 1, &ring->view) == napi_ok;
}

/* createQueue({ fd, isPacket, arena, rx, tx, rxRoom, vnetHdr }) → handle. The descriptor stays its opener's to close. */
static napi_value js_create_queue(napi_env env, napi_callback_info info) {
  napi_value argv[1], arena_value;
  int32_t fd = -1, room = 0;
  bool is_packet = false, vnet_hdr = false;
  if (!get_args(env, info, 1, argv) || !property_int(env, argv[0], "fd", &fd) || !property_int(env, argv[0], "rxRoom", &room) ||
      !property_bool(env, argv[0], "isPacket", &is_packet) || !property_bool(env, argv[0], "vnetHdr", &vnet_hdr) ||
      napi_get_named_property(env, argv[0], "arena", &arena_value) != napi_ok)
    return NULL;
  struct arena *arena = arena_of(env, arena_value);
  if (arena == NULL) return NULL;
  if (fd < 0) return misuse(env, "fd must be an open file descriptor");
  if (room <= VNET_HEADER || (size_t)room > arena->size) return misuse(env, "rxRoom must be more than 10 and at most the arena");

  struct instance *in = instance_of(env);
  int row = 0;
  while (row < HANDLE_ROWS && in->queues[row] != NULL) row++;
  struct queue *q = row < HANDLE_ROWS ? calloc(1, sizeof *q) : NULL;
  if (q == NULL) return fail(env, ENOMEM, "createQueue", NULL);
  q->fd = fd;
  q->is_packet = is_packet;
  q->room = (uint32_t)room;
  q->least = vnet_hdr ? VNET_HEADER + 1 : 1;
  q->arena = arena;
  arena->users++;
  if (!take_ring(env, argv[0], "rx", &q->rx) || !take_ring(env, argv[0], "tx", &q->tx)) {
    free_queue(in, q);
    return NULL;
  }
  q->iov = calloc(q->rx.size > q->tx.size ? q->rx.size : q->tx.size, sizeof *q->iov);
  if (q->iov == NULL) {
    free_queue(in, q);
    return fail(env, ENOMEM, "createQueue", NULL);
  }
  for (int i = 0; i < BATCH; i++) q->messages[i].msg_hdr.msg_iovlen = 1;
  q->handle = new_handle(in, HANDLE_QUEUE, row);
  in->queues[row] = q;
  return js_int(env, q->handle);
}

static napi_value js_destroy_queue(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  if (!get_args(env, info, 1, argv)) return NULL;
  struct queue *q = queue_of(env, argv[0]);
  if (q == NULL) return NULL;
  struct instance *in = instance_of(env);
  in->queues[q->handle & (HANDLE_ROWS - 1)] = NULL;
  free_queue(in, q);
  return js_undefined(env);
}

/* ---- receive and transmit ---- */

/* A buffer that was transferred to another thread has taken its memory with it: then the view no longer points there. */
static bool is_in_place(napi_env env, napi_ref view, const void *base) {
  napi_value array;
  void *now = NULL;
  return napi_get_reference_value(env, view, &array) == napi_ok &&
         napi_get_typedarray_info(env, array, NULL, NULL, &now, NULL, NULL) == napi_ok && now == base;
}

/* Fills iov[0..n) from the rx entries; 0, or -errno before anything has happened. */
static int check_rx(struct queue *q, int32_t n) {
  if (n < 0 || (uint32_t)n > q->rx.size) return -EINVAL;
  const struct arena *arena = q->arena;
  for (int32_t i = 0; i < n; i++) {
    int32_t offset = q->rx.entries[2 * i];
    if (offset < 0 || (size_t)offset + q->room > arena->size) return -EFAULT;
    q->iov[i] = (struct iovec){ .iov_base = arena->base + offset, .iov_len = q->room };
  }
  return 0;
}

static int check_tx(struct queue *q, int32_t n) {
  if (n < 0 || (uint32_t)n > q->tx.size) return -EINVAL;
  const struct arena *arena = q->arena;
  for (int32_t i = 0; i < n; i++) {
    int32_t offset = q->tx.entries[2 * i], length = q->tx.entries[2 * i + 1];
    if (length < (int32_t)q->least) return -EINVAL;
    if (offset < 0 || (size_t)offset + (size_t)length > arena->size) return -EFAULT;
    q->iov[i] = (struct iovec){ .iov_base = arena->base + offset, .iov_len = (size_t)length };
  }
  return 0;
}

/* One frame from a TUN. read(2) cuts a frame that is too long without a word, so a small room gets one byte of overflow. */
static ssize_t read_frame(struct queue *q, const struct iovec *to) {
  ssize_t got;
  do {
    if (q->room >= LONGEST_FRAME) {
      got = read(q->fd, to->iov_base, to->iov_len);
    } else {
      struct iovec both[2] = { *to, { .iov_base = &q->overflow, .iov_len = 1 } };
      got = readv(q->fd, both, 2);
    }
  } while (got < 0 && errno == EINTR);
  return got;
}

static int rx_tun(struct queue *q, int32_t n) {
  for (int32_t i = 0; i < n; i++) {
    ssize_t got = read_frame(q, &q->iov[i]);
    if (got < 0) return i > 0 || errno == EAGAIN ? i : -errno;
    q->rx.entries[2 * i + 1] = got > (ssize_t)q->room ? -(int32_t)got : (int32_t)got;
  }
  return n;
}

/* MSG_TRUNC makes the kernel tell the whole length of a frame that it cut. */
static int rx_packet(struct queue *q, int32_t n) {
  int32_t done = 0;
  while (done < n) {
    int batch = n - done < BATCH ? n - done : BATCH;
    for (int i = 0; i < batch; i++) q->messages[i].msg_hdr.msg_iov = &q->iov[done + i];
    int got = recvmmsg(q->fd, q->messages, (unsigned)batch, MSG_DONTWAIT | MSG_TRUNC, NULL);
    if (got < 0) {
      if (errno == EINTR) continue;
      return done > 0 || errno == EAGAIN ? done : -errno;
    }
    for (int i = 0; i < got; i++) {
      int32_t length = (int32_t)q->messages[i].msg_len;
      bool is_cut = (q->messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0;
      q->rx.entries[2 * (done + i) + 1] = is_cut ? -length : length;
    }
    done += got;
    if (got < batch) break;
  }
  return done;
}

static int tx_tun(struct queue *q, int32_t n) {
  int sent = 0;
  for (int32_t i = 0; i < n; i++) {
    ssize_t put;
    do put = write(q->fd, q->iov[i].iov_base, q->iov[i].iov_len);
    while (put < 0 && errno == EINTR);
    if (put < 0) q->tx.entries[2 * i + 1] = -errno;
    else sent++;
  }
  return sent;
}

/* sendmmsg stops at the frame that it cannot send and says why only when that is the first: so ask again from there. */
static int tx_packet(struct queue *q, int32_t n) {
  int sent = 0;
  int32_t at = 0;
  while (at < n) {
    int batch = n - at < BATCH ? n - at : BATCH;
    for (int i = 0; i < batch; i++) q->messages[i].msg_hdr.msg_iov = &q->iov[at + i];
    int put = sendmmsg(q->fd, q->messages, (unsigned)batch, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put > 0) {
      sent += put;
      at += put;
    } else if (errno != EINTR) {
      q->tx.entries[2 * at + 1] = -errno;
      at++;
    }
  }
  return sent;
}

/* rx(queue, n) → frames read, or -errno */
static napi_value receive(napi_env env, napi_value queue, int32_t n, int32_t tries) {
  struct queue *q = queue_of(env, queue);
  if (q == NULL) return NULL;
  if (!is_in_place(env, q->arena->view, q->arena->base) || !is_in_place(env, q->rx.view, q->rx.entries)) return js_int(env, -EFAULT);
  int got = check_rx(q, n);
  if (got < 0 || n == 0) return js_int(env, got);
  do got = q->is_packet ? rx_packet(q, n) : rx_tun(q, n);
  while (got == 0 && --tries > 0);
  return js_int(env, got);
}

static napi_value js_rx(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  int32_t n;
  if (!get_args(env, info, 2, argv) || !arg_int(env, argv[1], "n", &n)) return NULL;
  return receive(env, argv[0], n, 1);
}

/* rxSpin(queue, n, spins): rx, repeated while it finds nothing */
static napi_value js_rx_spin(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  int32_t n, spins;
  if (!get_args(env, info, 3, argv) || !arg_int(env, argv[1], "n", &n) || !arg_int(env, argv[2], "spins", &spins)) return NULL;
  return receive(env, argv[0], n, spins);
}

/* tx(queue, n) → frames sent, or -errno; frames that were refused have -errno as their length */
static napi_value js_tx(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  int32_t n;
  if (!get_args(env, info, 2, argv) || !arg_int(env, argv[1], "n", &n)) return NULL;
  struct queue *q = queue_of(env, argv[0]);
  if (q == NULL) return NULL;
  if (!is_in_place(env, q->arena->view, q->arena->base) || !is_in_place(env, q->tx.view, q->tx.entries)) return js_int(env, -EFAULT);
  int result = check_tx(q, n);
  if (result == 0) result = q->is_packet ? tx_packet(q, n) : tx_tun(q, n);
  return js_int(env, result);
}

void init_queue(napi_env env, napi_value exports) {
  export_function(env, exports, "registerArena", js_register_arena);
  export_function(env, exports, "releaseArena", js_release_arena);
  export_function(env, exports, "createQueue", js_create_queue);
  export_function(env, exports, "destroyQueue", js_destroy_queue);
  export_function(env, exports, "rx", js_rx);
  export_function(env, exports, "rxSpin", js_rx_spin);
  export_function(env, exports, "tx", js_tx);
}

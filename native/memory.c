/* Memory that outlives its process or is shared with another: memfd_create(2) and mmap(2). */
#define _GNU_SOURCE
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* memfd(name, size) → fd; its size is sealed, so that nobody can pull the pages away under a mapping */
static napi_value js_memfd(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  char name[200];
  int64_t size;
  if (!get_args(env, info, 2, argv) || !arg_string(env, argv[0], "name", name, sizeof name)) return NULL;
  if (napi_get_value_int64(env, argv[1], &size) != napi_ok || size <= 0) return misuse(env, "size must be a positive number of bytes");
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return fail(env, errno, "memfd_create", name);
  if (ftruncate(fd, size) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    int error = errno;
    close(fd);
    return fail(env, error, "ftruncate", name);
  }
  own_fd(instance_of(env), fd);
  return js_int(env, fd);
}

/* giveBack(fd): all memory of a memfd is the system's again, whoever has mapped it; it reads as zeros from now on */
static napi_value js_give_back(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int32_t fd;
  struct stat st;
  if (!get_args(env, info, 1, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  if (fstat(fd, &st) != 0) return fail(env, errno, "fstat", NULL);
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size) != 0) return fail(env, errno, "fallocate", NULL);
  return NULL;
}

static void unmap(napi_env env, void *data, void *hint) {
  (void)env;
  munmap(data, (size_t)(uintptr_t)hint);
}

/* mapShared(fd, size, offset) → ArrayBuffer, unmapped when it is collected; offset on a page's boundary */
static napi_value js_map_shared(napi_env env, napi_callback_info info) {
  napi_value argv[3], result = NULL;
  int32_t fd;
  int64_t size, offset;
  struct stat st;
  if (!get_args(env, info, 3, argv) || !arg_int(env, argv[0], "fd", &fd)) return NULL;
  if (napi_get_value_int64(env, argv[1], &size) != napi_ok || size <= 0) return misuse(env, "size must be a positive number of bytes");
  if (napi_get_value_int64(env, argv[2], &offset) != napi_ok || offset < 0 || offset % sysconf(_SC_PAGESIZE) != 0)
    return misuse(env, "offset must be a multiple of the page size");
  if (fstat(fd, &st) != 0) return fail(env, errno, "fstat", NULL);
  if (size > st.st_size || offset > st.st_size - size) return fail(env, EINVAL, "mmap beyond the end of the file", NULL);
  void *data = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  if (data == MAP_FAILED) return fail(env, errno, "mmap", NULL);
  if (napi_create_external_arraybuffer(env, data, (size_t)size, unmap, (void *)(uintptr_t)size, &result) != napi_ok) {
    munmap(data, (size_t)size);
    return fail(env, ENOTSUP, "napi_create_external_arraybuffer", NULL);
  }
  return result;
}

/* zeroShared(buffer): memory of mapShared is all zero again, and takes none; the work is that of the pages which were touched */
static napi_value js_zero_shared(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  void *data;
  size_t size;
  if (!get_args(env, info, 1, argv)) return NULL;
  if (napi_get_arraybuffer_info(env, argv[0], &data, &size) != napi_ok || size == 0) return misuse(env, "buffer must be an ArrayBuffer of mapShared");
  if (madvise(data, size, MADV_REMOVE) != 0) return fail(env, errno, "madvise", NULL);
  return NULL;
}

#define HUGE_PAGE ((size_t)2 << 20)
/* From this size on a table is worth 2 MiB pages: what is walked at random costs a TLB miss less per step. */
#define HUGE ((size_t)16 << 20)

/*
 * zeroPages(size) → ArrayBuffer of zeros, whose pages are there only once they are touched. (Memory of the allocator that somebody had before is cleared, and so
 * touched, when it is given out again.)
 */
static napi_value js_zero_pages(napi_env env, napi_callback_info info) {
  napi_value argv[1], result = NULL;
  int64_t wanted;
  if (!get_args(env, info, 1, argv)) return NULL;
  if (napi_get_value_int64(env, argv[0], &wanted) != napi_ok || wanted <= 0) return misuse(env, "size must be a positive number of bytes");
  size_t size = (size_t)wanted, unit = size < HUGE ? (size_t)sysconf(_SC_PAGESIZE) : HUGE_PAGE;
  size_t used = (size + unit - 1) & ~(unit - 1), reserved = size < HUGE ? used : used + HUGE_PAGE;
  uint8_t *base = mmap(NULL, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return fail(env, errno, "mmap", NULL);
  uint8_t *data = (uint8_t *)(((uintptr_t)base + unit - 1) & ~(uintptr_t)(unit - 1));
  /* Give back what lies before the first boundary and behind the end, so that the rest begins on a boundary. */
  size_t before = (size_t)(data - base), behind = reserved - used - before;
  if (before > 0) munmap(base, before);
  if (behind > 0) munmap(data + used, behind);
  if (size >= HUGE) madvise(data, used, MADV_HUGEPAGE); /* a wish: without it everything works on 4 KiB pages */
  if (napi_create_external_arraybuffer(env, data, size, unmap, (void *)(uintptr_t)used, &result) != napi_ok) {
    munmap(data, used);
    return fail(env, ENOTSUP, "napi_create_external_arraybuffer", NULL);
  }
  return result;
}

void init_memory(napi_env env, napi_value exports) {
  export_function(env, exports, "memfd", js_memfd);
  export_function(env, exports, "giveBack", js_give_back);
  export_function(env, exports, "mapShared", js_map_shared);
  export_function(env, exports, "zeroShared", js_zero_shared);
  export_function(env, exports, "zeroPages", js_zero_pages);
}

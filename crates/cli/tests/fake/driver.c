// A CUDA driver without a card: it keeps count of memory and launches and computes nothing. Environment variables make it
// fail:
//   FAKE_DRIVER    the version of CUDA that it says it has, 13000 where nothing is said
//   FAKE_DEVICES   how many cards it has, 1
//   FAKE_FREE      bytes that it says are free, of 100 GB
//   FAKE_ROOM      bytes after which it has no memory any more
//   FAKE_LAUNCHES  launches after which its card is lost
// and say what was done:
//   FAKE_GRAPHS    a file for the number of graphs that were launched
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, OUT_OF_MEMORY = 2, NO_DEVICE = 100, LAUNCH_FAILED = 719 };

typedef uint64_t Address;

static const long TOTAL = 100000000000;

static long number(const char *name, long usual) {
    const char *text = getenv(name);
    return text ? atol(text) : usual;
}

// The version, the card and what it can do, as of an H200.
int cuInit(unsigned flags) { return number("FAKE_DEVICES", 1) ? OK : NO_DEVICE; }
int cuDriverGetVersion(int *version) { return *version = number("FAKE_DRIVER", 13000), OK; }
int cuDeviceGetCount(int *count) { return *count = number("FAKE_DEVICES", 1), OK; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, OK; }
int cuDeviceGetName(char *name, int length, int device) { return snprintf(name, length, "no card"), OK; }
int cuDeviceGetUuid_v2(char *uuid, int device) { return memset(uuid, 0, 16), OK; }
int cuDeviceGetPCIBusId(char *id, int length, int device) { return snprintf(id, length, "0000:00:00.0"), OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = TOTAL, OK; }
int cuMemGetInfo_v2(size_t *left, size_t *all) {
    return *left = number("FAKE_FREE", TOTAL), *all = TOTAL, OK;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    static const struct { int attribute, value; } known[] = {
        {1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 2147483647}, {6, 65535}, {7, 65535}, {8, 49152}, {10, 32},
        {12, 65536}, {14, 512}, {16, 132}, {39, 2048}, {75, 9}, {76, 0}, {81, 233472}, {82, 65536}, {97, 232448},
    };
    *value = 1;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].attribute == attribute) *value = known[i].value;
    return OK;
}

// Things that are made are numbers.
static int make(void **thing) {
    static intptr_t last = 16;
    return *thing = (void *)++last, OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return make(context); }
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
int cuCtxGetCurrent(void **context) { return make(context); }
int cuCtxSetCurrent(void *context) { return OK; }
int cuCtxSynchronize(void) { return OK; }
int cuStreamCreate(void **stream, unsigned flags) { return make(stream); }
int cuStreamDestroy_v2(void *stream) { return OK; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return OK; }
int cuEventCreate(void **event, unsigned flags) { return make(event); }
int cuEventRecord(void *event, void *stream) { return OK; }
int cuEventDestroy_v2(void *event) { return OK; }
int cuModuleLoadData(void **module, const void *image) { return make(module); }
int cuModuleUnload(void *module) { return OK; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return make(function); }
int cuFuncSetAttribute(void *function, int attribute, int value) { return OK; }
int cuFuncGetAttribute(int *value, int attribute, void *function) { return *value = 0, OK; }

// Memory, none of which is ever given back.
static long taken;
int cuMemAlloc_v2(Address *address, size_t bytes) {
    if (taken + (long)bytes > number("FAKE_ROOM", TOTAL)) return OUT_OF_MEMORY;
    *address = 0x700000000000 + taken;
    taken += (bytes + 511) / 512 * 512;
    return OK;
}
int cuMemAllocAsync(Address *address, size_t bytes, void *stream) { return cuMemAlloc_v2(address, bytes); }
int cuMemFree_v2(Address address) { return OK; }
int cuMemFreeAsync(Address address, void *stream) { return OK; }
int cuMemAllocHost_v2(void **memory, size_t bytes) { return *memory = calloc(1, bytes ? bytes : 1), OK; }
int cuMemFreeHost(void *memory) { return free(memory), OK; }

// Work, until the card is lost.
static long launches;
static int lost(void) {
    long most = number("FAKE_LAUNCHES", -1);
    return most >= 0 && launches > most ? LAUNCH_FAILED : OK;
}
int cuLaunchKernel() { return launches++, lost(); }
int cuMemcpyHtoDAsync_v2() { return lost(); }
int cuMemcpy2DAsync_v2() { return lost(); }
int cuMemcpyDtoDAsync_v2() { return lost(); }
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
    return memset(to, 0, bytes), lost();
}
int cuStreamSynchronize(void *stream) { return lost(); }
int cuEventSynchronize(void *event) { return lost(); }
int cuEventElapsedTime_v2(float *time, void *from, void *to) { return *time = 0, OK; }
int cuStreamBeginCapture_v2(void *stream, int mode) { return OK; }
int cuStreamEndCapture(void *stream, void **graph) { return make(graph); }
int cuStreamIsCapturing(void *stream, int *is) { return *is = 0, OK; }
int cuGraphInstantiateWithFlags(void **run, void *graph, unsigned long long flags) { return make(run); }
int cuGraphUpload(void *run, void *stream) { return OK; }
static long graphs;
int cuGraphLaunch(void *run, void *stream) { return graphs++, launches++, lost(); }
__attribute__((destructor)) static void report(void) {
    const char *name = getenv("FAKE_GRAPHS");
    FILE *file = name ? fopen(name, "w") : NULL;
    if (file) fprintf(file, "%ld", graphs), fclose(file);
}
int cuGraphDestroy(void *graph) { return OK; }
int cuGraphExecDestroy(void *run) { return OK; }
int cuGraphGetNodes(void *graph, void *nodes, size_t *count) { return *count = 1, OK; }
int cuGraphNodeGetType() { return OK; }
int cuThreadExchangeStreamCaptureMode(int *mode) { return OK; }
int cuGetErrorName(int error, const char **name) { return *name = "an error", OK; }
int cuGetErrorString(int error, const char **text) { return *text = "an error", OK; }

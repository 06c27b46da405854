// An NVRTC that takes every text and makes nothing of it.
#include <stddef.h>
#include <string.h>

static const char PTX[] = ".version 8.0";

int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
int nvrtcCreateProgram(void **program) { return *program = (void *)8, 0; }
int nvrtcCompileProgram() { return 0; }
int nvrtcDestroyProgram() { return 0; }
int nvrtcGetPTXSize(void *program, size_t *bytes) { return *bytes = sizeof PTX, 0; }
int nvrtcGetPTX(void *program, char *text) { return memcpy(text, PTX, sizeof PTX), 0; }
int nvrtcGetProgramLogSize(void *program, size_t *bytes) { return *bytes = 1, 0; }
int nvrtcGetProgramLog(void *program, char *text) { return *text = 0, 0; }
const char *nvrtcGetErrorString(int error) { return "an error"; }
